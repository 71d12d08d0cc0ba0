package engine

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"go.uber.org/goleak"

	"github.com/metasrv/metasrv"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*loggingT).flushDaemon"),
		goleak.IgnoreAnyFunction("github.com/dolthub/vitess/go/mysql.init.0.func1"))
}

// serve starts a server over the store and returns a client of it.
func serve(t *testing.T, store Store) *sql.DB {
	t.Helper()
	return open(t, serveAt(t, store))
}

// open returns a client of the server at addr, with parameters of the driver: "name=value".
func open(t *testing.T, addr string, params ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", fmt.Sprintf("root@tcp(%s)/public?%s", addr, strings.Join(params, "&")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// serveAt starts a server over the store and returns its address.
func serveAt(t *testing.T, store Store) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(l, store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func exec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// query returns the rows of a query, one a line, values separated by "|".
func query(t *testing.T, db *sql.DB, statement string) string {
	t.Helper()
	s, err := tryQuery(db, statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return s
}

func tryQuery(db *sql.DB, statement string) (string, error) {
	rows, err := db.Query(statement)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var lines []string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return "", err
		}
		fields := make([]string, len(columns))
		for i, v := range values {
			fields[i] = "NULL"
			if v.Valid {
				fields[i] = v.String
			}
		}
		lines = append(lines, strings.Join(fields, "|"))
	}
	return strings.Join(lines, "\n"), rows.Err()
}

func TestStatements(t *testing.T) {
	store := newMemoryStore()
	db := serve(t, store)
	for _, s := range []struct{ statement, want string }{
		{"SHOW DATABASES", "information_schema\npublic"},
		{"CREATE DATABASE other", ""},
		{"CREATE DATABASE IF NOT EXISTS other", ""},
		{"SHOW DATABASES", "information_schema\nother\npublic"},
		{"DROP DATABASE other", ""},
		{"SHOW TABLES", ""},
		{`CREATE TABLE m (ts TIMESTAMP(6) NOT NULL, host VARCHAR(64) NOT NULL, v DOUBLE, n BIGINT UNSIGNED,
			b BOOLEAN, x VARBINARY(10), PRIMARY KEY (host, ts)) COMMENT 'replicas=2; it''s'
			PARTITION BY RANGE COLUMNS (host) (PARTITION a VALUES LESS THAN ('h'), PARTITION z VALUES LESS THAN (MAXVALUE))`, ""},
		{"CREATE TABLE IF NOT EXISTS m (a INT)", ""},
		{"SHOW TABLES", "m"},
		{"DESCRIBE m", "ts|timestamp(6)|NO|PRI|NULL|\nhost|varchar(64)|NO|PRI|NULL|\nv|double|YES||NULL|\n" +
			"n|bigint unsigned|YES||NULL|\nb|tinyint(1)|YES||NULL|\nx|varbinary(10)|YES||NULL|"},
		{"SHOW CREATE TABLE m", "m|CREATE TABLE `m` (\n  `ts` timestamp(6) NOT NULL,\n  `host` varchar(64) NOT NULL,\n" +
			"  `v` double,\n  `n` bigint unsigned,\n  `b` tinyint(1),\n  `x` varbinary(10),\n  PRIMARY KEY (`host`,`ts`)\n" +
			") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_bin COMMENT='replicas=2; it''s'\n" +
			"PARTITION BY RANGE COLUMNS(`host`)\n(PARTITION `a` VALUES LESS THAN ('h'),\n PARTITION `z` VALUES LESS THAN (MAXVALUE))"},
		{"INSERT INTO m VALUES ('2024-01-01 00:00:00.123456','a',1.5,18446744073709551615,true,x'00ff'), ('2024-01-01','b',NULL,NULL,false,NULL)", ""},
		{"INSERT INTO m (ts, host, v) SELECT ts, 'c', v FROM m WHERE host = 'a'", ""},
		{"REPLACE INTO m (ts, host, v) VALUES ('2024-01-01','b',2), ('2024-01-01','b',3)", ""},
		{"SELECT ts, host, v, n, b, hex(x) FROM m ORDER BY host", "2024-01-01 00:00:00.123456|a|1.5|18446744073709551615|1|00FF\n" +
			"2024-01-01 00:00:00|b|3|NULL|NULL|NULL\n2024-01-01 00:00:00.123456|c|1.5|NULL|NULL|NULL"},
		{"SELECT count(*) FROM m", "3"},
		{"EXPLAIN SELECT host FROM m WHERE host = 'a'", "Filter\n ├─ (m.host = 'a')\n └─ Table\n     ├─ name: m\n     └─ columns: [host]"},
		{"EXPLAIN FORMAT=TREE SELECT 1", "Project\n ├─ columns: [1]\n └─ Table\n     └─ name: "},
		{"DESC SELECT 1", "Project\n ├─ columns: [1]\n └─ Table\n     └─ name: "},
		{"EXPLAIN SELECT count(*) FROM m", "Project\n ├─ columns: [count(1)]\n └─ GroupBy\n     ├─ SelectedExprs(COUNT(1))\n" +
			"     ├─ Grouping()\n     └─ Table\n         ├─ name: m\n         └─ columns: []"},
		{"SELECT x.host, sum(y.v) FROM m x JOIN m y ON x.ts = y.ts WHERE x.host > 'a' GROUP BY x.host ORDER BY 1", "b|3\nc|3"},
		{"SELECT host FROM m WHERE ts = '2024-01-01 00:00:00.123456' AND host IN (SELECT host FROM m WHERE v < 2) ORDER BY host", "a\nc"},
		{"DROP TABLE m", ""},
		{"CREATE TABLE free (a INT) COMMENT 'all replicas of note: unit=ms, time=UTC'", ""},
		{"DROP TABLE free", ""},
		{"CREATE TABLE k (a INT) PARTITION BY KEY(a) PARTITIONS 3", ""},
		{"SHOW CREATE TABLE k", "k|CREATE TABLE `k` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 " +
			"COLLATE=utf8mb4_0900_bin\nPARTITION BY KEY (`a`)\nPARTITIONS 3"},
		{"DROP TABLE k", ""},
		{"DROP TABLE IF EXISTS m", ""},
		{"SHOW TABLES", ""},
	} {
		if got := query(t, db, s.statement); got != s.want {
			t.Errorf("%s:\n got %q\nwant %q", s.statement, got, s.want)
		}
	}
}

// refusals are statements that fail, over a table t (k INT PRIMARY KEY, s VARCHAR(3), …).
var refusals = []struct {
	statement string
	code      uint16
	says      string
}{
	{"SELEC 1", 1064, "syntax error"},
	{"USE nothing", 1049, "nothing"},
	{"SELECT * FROM nothing", 1146, "nothing"},
	{"SELECT * FROM nothing.t", 1049, "nothing"},
	{"DROP TABLE nothing", 1146, "nothing"},
	{"DROP DATABASE public", 1010, "public"},
	{"CREATE DATABASE public", 1007, "public"},
	{"CREATE TABLE t (k INT)", 1050, "'t' already exists"},
	{"CREATE TABLE nothing.t (k INT)", 1049, "nothing"},
	{"CREATE TABLE x (k DECIMAL(10,2))", 1235, "column k: type DECIMAL(10,2)"},
	{"CREATE TABLE x (k JSON)", 1235, "column k: type JSON"},
	{"CREATE TABLE x (k ENUM('a'))", 1235, "column k: type ENUM('A')"},
	{"CREATE TABLE x (k CHAR(3))", 1235, "use VARCHAR"},
	{"CREATE TABLE x (k TIME)", 1235, "type TIME"},
	{"CREATE TABLE x (k YEAR)", 1235, "type YEAR"},
	{"CREATE TABLE x (k BIT(3))", 1235, "type BIT(3)"},
	{"CREATE TABLE x (k VARCHAR(3) COLLATE utf8mb4_0900_ai_ci)", 1235, "collation utf8mb4_0900_ai_ci"},
	{"CREATE TABLE x (k INT) COLLATE utf8mb4_general_ci", 1235, "collation utf8mb4_general_ci"},
	{"CREATE TABLE x (k INT DEFAULT 3)", 1235, "DEFAULT"},
	{"CREATE TABLE x (k INT AUTO_INCREMENT PRIMARY KEY)", 1235, "AUTO_INCREMENT"},
	{"CREATE TABLE x (k INT UNIQUE)", 1235, "unique"},
	{"CREATE TABLE x (k INT, KEY i (k))", 1235, "index i"},
	{"CREATE TABLE x (k INT, CHECK (k > 1))", 1235, "CHECK"},
	{"CREATE TABLE x (k INT, FOREIGN KEY (k) REFERENCES t(k))", 1235, "foreign keys"},
	{"CREATE TABLE x LIKE t", 1235, "LIKE"},
	{"CREATE TABLE x AS SELECT * FROM t", 1235, "SELECT"},
	{"CREATE TEMPORARY TABLE x (k INT)", 1235, "temporary"},
	{"CREATE TABLE x (k INT) COMMENT 'replicas=0'", 1210, "replicas=0"},
	{"CREATE TABLE x (k INT) COMMENT 'replica=3'", 1210, `"replica=3" is no option: write replicas=N`},
	{"CREATE TABLE x (k INT) COMMENT 'mine, replicas:3'", 1210, `"replicas:3"`},
	{"CREATE TABLE x (k INT) COMMENT 'replicas = 3'", 1210, `"replicas = 3"`},
	{"CREATE TABLE x (k INT) COMMENT 'Replicas=3'", 1210, `"Replicas=3"`},
	{"CREATE TABLE x (k INT) COMMENT 'replicas=two'", 1210, `"replicas=two"`},
	{"CREATE TABLE x (k INT) COMMENT 'replicas=2 timeindex=k'", 1210, "write time_index=column"},
	{"CREATE TABLE x (k INT) COMMENT 'time_index=k'", 1054, "time_index=k"},
	{"CREATE TABLE x (k INT, j INT, PRIMARY KEY (j)) PARTITION BY HASH(k) PARTITIONS 2", 1503, "'k'"},
	{"CREATE TABLE x (k INT) PARTITION BY HASH(j) PARTITIONS 2", 1488, "'j'"},
	{"CREATE TABLE x (k INT) PARTITION BY HASH(k) PARTITIONS 0", 1504, "= 0"},
	{"CREATE TABLE x (k INT) PARTITION BY HASH(k) PARTITIONS 99999", 1499, "PARTITIONS 99999: must be 1 to 4096"},
	{"CREATE TABLE x (k INT) PARTITION BY HASH(k) PARTITIONS 99999999999", 1499, "PARTITIONS 99999999999: must be 1 to 4096"},
	{"CREATE TABLE x (k INT) PARTITION BY KEY(k, k) PARTITIONS 2", 1488, "PARTITION BY: names column"},
	{"CREATE TABLE x (k INT) PARTITION BY RANGE (k) (PARTITION a VALUES LESS THAN MAXVALUE)", 1064, "write VALUES LESS THAN (MAXVALUE)"},
	{"CREATE TABLE x (k INT) PARTITION BY HASH(k+1) PARTITIONS 2", 1235, "expression"},
	{"CREATE TABLE x (k INT) PARTITION BY LINEAR HASH(k) PARTITIONS 2", 1235, "LINEAR"},
	{"CREATE TABLE x (k INT) PARTITION BY RANGE COLUMNS (k)", 1492, "defined"},
	{"CREATE TABLE x (k INT) PARTITION BY RANGE COLUMNS (k) (PARTITION a VALUES LESS THAN (2), PARTITION b VALUES LESS THAN (1))", 1493, "bound"},
	{"CREATE TABLE x (k INT) PARTITION BY RANGE COLUMNS (k) (PARTITION a VALUES LESS THAN (2))", 1493, "MAXVALUE"},
	{"CREATE TABLE x (k INT) PARTITION BY RANGE COLUMNS (k) (PARTITION a VALUES LESS THAN ('2'), PARTITION b VALUES LESS THAN (MAXVALUE))", 1654, "partition a"},
	{"CREATE TABLE x (k INT) PARTITION BY RANGE COLUMNS (k) (PARTITION a VALUES LESS THAN (1.5), PARTITION b VALUES LESS THAN (MAXVALUE))", 1654, "partition a"},
	{"UPDATE t SET s = 'a'", 1235, "UPDATE"},
	{"DELETE FROM t", 1235, "DELETE"},
	{"DELETE FROM t WHERE k = 1", 1235, "DELETE"},
	{"TRUNCATE TABLE t", 1235, "TRUNCATE"},
	{"ALTER TABLE t ADD COLUMN z INT", 1235, "ALTER TABLE"},
	{"ALTER TABLE t RENAME TO z", 1235, "ALTER TABLE"},
	{"RENAME TABLE t TO z", 1235, "ALTER TABLE"},
	{"CREATE INDEX i ON t (s)", 1235, "not supported"},
	{"CREATE VIEW v AS SELECT 1", 1235, "views"},
	{"START TRANSACTION", 1235, "transactions"},
	{"ROLLBACK", 1235, "transactions"},
	{"SET autocommit = 0", 1235, "autocommit"},
	{"SET time_zone = '+02:00'", 1235, "UTC"},
	{"PREPARE s FROM 'SELECT 1'", 1235, "PREPARE"},
	{"EXECUTE s", 1235, "PREPARE"},
	{"DEALLOCATE PREPARE s", 1235, "PREPARE"},
	{"LOCK TABLES t WRITE", 1235, "LOCK TABLES"},
	{"LOAD DATA INFILE '/etc/passwd' INTO TABLE t", 1235, "LOAD DATA"},
	{"SELECT 1 INTO OUTFILE '/tmp/x'", 1235, "OUTFILE"},
	{"INSERT IGNORE INTO t (k) VALUES (1)", 1235, "IGNORE"},
	{"INSERT INTO t (k) VALUES (1) ON DUPLICATE KEY UPDATE s = 'a'", 1235, "ON DUPLICATE"},
	{"INSERT INTO t (k) VALUES (NULL)", 1048, "'k'"},
	{"INSERT INTO t (k) VALUES (1), (1)", 1062, "same primary key"},
	{"INSERT INTO t (k, b) VALUES (1, 2)", 1264, "BOOLEAN"},
	{"INSERT INTO t (k, u) VALUES (1, 256)", 1264, "range"},
	{"INSERT INTO t (k, s) VALUES (1, 'long')", 1406, "too"},
	{"INSERT INTO t (k, d) VALUES (1, '0001-01-01')", 1264, "column d"},
}

// TestRefusals: no statement that is refused does anything, however a connection sends its statements: the stock
// client's may send several at a time, which the engine handles apart.
func TestRefusals(t *testing.T) {
	for _, params := range []string{"multiStatements=false", "multiStatements=true"} {
		t.Run(params, func(t *testing.T) {
			db := open(t, serveAt(t, newMemoryStore()), params)
			exec(t, db, "CREATE TABLE t (k INT PRIMARY KEY, s VARCHAR(3), b BOOLEAN, d DATETIME(6), u TINYINT UNSIGNED)")
			exec(t, db, "INSERT INTO t (k, s) VALUES (1, 'old')")
			for _, c := range refusals {
				_, err := db.Exec(c.statement)
				var e *mysql.MySQLError
				if !errors.As(err, &e) {
					t.Errorf("%s: %v", c.statement, err)
					continue
				}
				if e.Number != c.code || !strings.Contains(e.Message, c.says) {
					t.Errorf("%s:\n got %d %q\nwant %d …%s…", c.statement, e.Number, e.Message, c.code, c.says)
				}
			}
			if got := query(t, db, "SELECT LOAD_FILE('/etc/passwd')"); got != "NULL" {
				t.Errorf("LOAD_FILE reads the server's files: %s", got)
			}
			if got := query(t, db, "SELECT k, s FROM t"); got != "1|old" {
				t.Errorf("refused statements stored %s", got)
			}
		})
	}
}

// TestSeveralStatements: one packet's statements run in their order up to the first that fails.
func TestSeveralStatements(t *testing.T) {
	db := open(t, serveAt(t, newMemoryStore()), "multiStatements=true")
	exec(t, db, "CREATE TABLE t (k INT PRIMARY KEY, s VARCHAR(3)); INSERT INTO t VALUES (1, 'a;b'); INSERT INTO t VALUES (2, 'x')")
	rows, err := db.Query("SELECT 1; SELECT s FROM t WHERE k = 1;")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for more := true; more; more = rows.NextResultSet() {
		for rows.Next() {
			var v string
			if err := rows.Scan(&v); err != nil {
				t.Fatal(err)
			}
			got = append(got, v)
		}
	}
	if strings.Join(got, "|") != "1|a;b" || rows.Err() != nil {
		t.Errorf("got %q, %v", got, rows.Err())
	}
	if _, err := db.Exec("INSERT INTO t VALUES (3, 'x'); DELETE FROM t; INSERT INTO t VALUES (4, 'x')"); err == nil {
		t.Error("a DELETE among others is acknowledged")
	}
	if got := query(t, db, "SELECT k FROM t ORDER BY k"); got != "1\n2\n3" {
		t.Errorf("stored %q, want all before the DELETE", got)
	}
}

func TestFailures(t *testing.T) {
	store := newMemoryStore()
	db := serve(t, store)
	exec(t, db, "CREATE TABLE t (k INT PRIMARY KEY)")
	exec(t, db, "INSERT INTO t VALUES (1), (2), (3)")

	store.writeErr = metasrv.ErrNotReady.With("no region leader")
	if _, err := db.Exec("INSERT INTO t VALUES (4)"); err == nil || !strings.Contains(err.Error(), "no region leader") {
		t.Errorf("failed write: %v", err)
	}
	if _, err := db.Exec("INSERT INTO t SELECT k + 10 FROM t"); err == nil {
		t.Error("failed INSERT … SELECT is acknowledged")
	}
	store.writeErr = nil

	for _, q := range []string{"SELECT * FROM t", "SELECT count(*) FROM t", "SELECT * FROM t ORDER BY k",
		"SELECT a.k FROM t a JOIN t b ON a.k = b.k"} {
		store.failScanAfter = 2
		if got, err := tryQuery(db, q); err == nil {
			t.Errorf("%s answers %q where a scan failed", q, got)
		}
	}
	store.failScanAfter = 1
	if _, err := db.Exec("INSERT INTO t SELECT k + 10 FROM t"); err == nil {
		t.Error("INSERT … SELECT is acknowledged though its scan failed")
	}
	store.failScanAfter = -1
	if got := query(t, db, "SELECT count(*) FROM t"); got != "3" {
		t.Errorf("%s rows, want 3", got)
	}
}
