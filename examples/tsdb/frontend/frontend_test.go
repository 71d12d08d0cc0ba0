package frontend_test

import (
	"strings"
	"testing"
)

const createMetrics = `CREATE TABLE metrics (
	ts TIMESTAMP(6) NOT NULL, host VARCHAR(64) NOT NULL, cpu DOUBLE, n BIGINT, up BOOLEAN, note VARCHAR(20),
	PRIMARY KEY (host, ts)) COMMENT 'replicas=2'
	PARTITION BY RANGE COLUMNS (host) (
		PARTITION a VALUES LESS THAN ('h'), PARTITION b VALUES LESS THAN ('p'),
		PARTITION c VALUES LESS THAN ('t'), PARTITION d VALUES LESS THAN (MAXVALUE))`

// TestTable goes through the life of a partitioned and replicated table.
func TestTable(t *testing.T) {
	s := start(t, 3)
	s.exec(createMetrics)
	s.exec(`INSERT INTO metrics VALUES
		('2024-01-01 00:00:00.000001','alpha',1.5,-1,true,'x'), ('2024-01-01 00:00:01','mike',2.5,9223372036854775807,false,NULL),
		('2024-01-01 00:00:02','quebec',NULL,NULL,NULL,'it''s'), ('2024-01-01 00:00:03','zulu',4.5,4,true,'ü')`)
	if got, want := s.query("SELECT * FROM metrics ORDER BY host"), strings.Join([]string{
		"2024-01-01 00:00:00.000001|alpha|1.5|-1|1|x",
		"2024-01-01 00:00:01|mike|2.5|9223372036854775807|0|NULL",
		"2024-01-01 00:00:02|quebec|NULL|NULL|NULL|it's",
		"2024-01-01 00:00:03|zulu|4.5|4|1|ü",
	}, "\n"); got != want {
		t.Errorf("rows are\n%s\nwant\n%s", got, want)
	}
	s.exec("INSERT INTO metrics (ts, host, cpu) VALUES ('2024-01-01 00:00:03','zulu',5)")
	for _, c := range []struct{ query, want string }{
		{"SELECT count(*), sum(cpu) FROM metrics", "4|9"},
		{"SELECT host, cpu, note FROM metrics WHERE host = 'zulu'", "zulu|5|NULL"},
		{"SELECT host FROM metrics WHERE host >= 'm' AND host < 'r' ORDER BY host", "mike\nquebec"},
		{"SELECT a.host, b.host FROM metrics a JOIN metrics b ON a.cpu = b.cpu + 1 ORDER BY 1", "mike|alpha"},
		{"SHOW TABLES", "metrics"},
		{"SHOW DATABASES", "information_schema\npublic"},
	} {
		if got := s.query(c.query); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.query, got, c.want)
		}
	}
	if got := s.query("SHOW CREATE TABLE metrics"); !strings.Contains(got, "PARTITION BY RANGE COLUMNS(`host`)") {
		t.Errorf("SHOW CREATE TABLE lacks the partitions: %s", got)
	}
	s.exec("DROP TABLE metrics")
	if _, err := tryQuery(s.db, "SELECT * FROM metrics"); err == nil || !strings.Contains(err.Error(), "1146") {
		t.Errorf("query of a dropped table: %v", err)
	}
	s.exec(createMetrics)
	if got := s.query("SELECT count(*) FROM metrics"); got != "0" {
		t.Errorf("the new table has %s rows of the old one", got)
	}
}
