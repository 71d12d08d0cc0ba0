package frontend_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the reference
)

// TestRandomQueries compares random filters and aggregates with SQLite, over tables that are cut in different
// ways. SQLite gets the same rows; times are text in it, and strings compare byte by byte in both.
func TestRandomQueries(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := start(t, 2)
	reference, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer reference.Close()
	reference.SetMaxOpenConns(1)

	tables := []string{"plain", "by_range", "by_int", "by_time", "by_hash", "by_key"}
	const columns = "(id INT NOT NULL, i BIGINT, u BIGINT UNSIGNED, d DOUBLE, s VARCHAR(20), b BOOLEAN, ts DATETIME(6), PRIMARY KEY (id%s))"
	for i, c := range []struct{ key, clause string }{
		{"", ""},
		{", s", "PARTITION BY RANGE COLUMNS (s) (PARTITION a VALUES LESS THAN ('B'), PARTITION b VALUES LESS THAN ('a'), PARTITION c VALUES LESS THAN ('aé'), PARTITION d VALUES LESS THAN (MAXVALUE))"},
		{", i", "PARTITION BY RANGE COLUMNS (i) (PARTITION a VALUES LESS THAN (-5), PARTITION b VALUES LESS THAN (0), PARTITION c VALUES LESS THAN (5), PARTITION d VALUES LESS THAN (MAXVALUE))"},
		{", ts", "PARTITION BY RANGE COLUMNS (ts) (PARTITION a VALUES LESS THAN ('2024-01-01 00:00:02'), PARTITION b VALUES LESS THAN ('2024-01-01 00:00:05.000001'), PARTITION c VALUES LESS THAN (MAXVALUE))"},
		{"", "PARTITION BY HASH(id) PARTITIONS 5"},
		{", u, s", "PARTITION BY KEY(u, s) PARTITIONS 4"},
	} {
		s.exec("CREATE TABLE " + tables[i] + " " + fmt.Sprintf(columns, c.key) + " " + c.clause)
	}
	if _, err := reference.Exec("CREATE TABLE t (id, i, u, d, s, b, ts)"); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for id := range 200 {
		g := generator{r: r, notNull: true}
		rows = append(rows, fmt.Sprintf("(%d,%s,%s,%s,%s,%s,%s)", id, g.integer(), g.unsigned(),
			generator{r: r}.double(), g.text(), generator{r: r}.boolean(), g.time()))
	}
	values := strings.Join(rows, ",")
	if _, err := reference.Exec("INSERT INTO t VALUES " + values); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		s.exec("INSERT INTO " + table + " VALUES " + values)
	}

	for range 400 {
		g := generator{r: r}
		filter := g.filter(2)
		var list string
		switch r.IntN(4) {
		case 0:
			list = "count(*), sum(id), min(s), max(u), min(ts)"
		case 1:
			list = "s, count(*), max(i) FROM %s WHERE %s GROUP BY s"
		default:
			list = "id, i, u, s, b, ts"
		}
		query := "SELECT " + list
		if !strings.Contains(list, "FROM") {
			query += " FROM %s WHERE %s"
		}
		want, err := tryQuery(reference, fmt.Sprintf(query, "t", filter))
		if err != nil {
			t.Fatalf("%s: %v", fmt.Sprintf(query, "t", filter), err)
		}
		slices.Sort(want)
		for _, table := range tables {
			mysqlQuery := fmt.Sprintf(query, table, filter)
			got, err := tryQuery(s.db, mysqlQuery)
			if err != nil {
				t.Fatalf("seed %d: %s: %v", seed, mysqlQuery, err)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: %s:\ngot %d rows\n%s\nwant %d\n%s", seed, mysqlQuery, len(got),
					strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
			}
		}
	}
}

// generator makes random literals and filters that MySQL and SQLite understand alike.
type generator struct {
	r       *rand.Rand
	notNull bool
}

func (g generator) pick(of ...string) string { return of[g.r.IntN(len(of))] }

func (g generator) orNull(s string) string {
	if !g.notNull && g.r.IntN(5) == 0 {
		return "NULL"
	}
	return s
}

func (g generator) integer() string {
	return g.orNull(g.pick(fmt.Sprint(g.r.IntN(21)-10), fmt.Sprint(g.r.IntN(5)), "9007199254740993", "-9223372036854775807"))
}

func (g generator) unsigned() string {
	return g.orNull(g.pick(fmt.Sprint(g.r.IntN(10)), "9223372036854775807", "4294967296"))
}

func (g generator) double() string {
	return g.orNull(g.pick("0.1", "-2.5", "1e10", "3.0", fmt.Sprintf("%.3f", g.r.Float64()*10)))
}

func (g generator) text() string {
	return g.orNull("'" + g.pick("", "a", "A", "B", "b", "aé", "az", "ab ", "ab", "Z", "é") + "'")
}

func (g generator) boolean() string { return g.orNull(g.pick("0", "1")) }

func (g generator) time() string {
	return g.orNull(fmt.Sprintf("'2024-01-01 00:00:0%d.00000%d'", g.r.IntN(8), 1+g.r.IntN(3)))
}

func (g generator) filter(depth int) string {
	if depth > 0 && g.r.IntN(2) == 0 {
		return "(" + g.filter(depth-1) + g.pick(" AND ", " OR ", " AND ") + g.filter(depth-1) + ")"
	}
	if g.r.IntN(12) == 0 {
		return "NOT (" + g.leaf() + ")"
	}
	return g.leaf()
}

func (g generator) leaf() string {
	g.notNull = g.r.IntN(10) != 0
	column, literal := "", g.text
	switch g.r.IntN(6) {
	case 0:
		column, literal = "i", g.integer
	case 1:
		column, literal = "u", g.unsigned
	case 2:
		column, literal = "d", g.double
	case 3:
		column, literal = "ts", g.time
	case 4:
		return "b = " + g.boolean()
	default:
		column = "s"
	}
	switch g.r.IntN(8) {
	case 0:
		return column + " IS NULL"
	case 1:
		return column + " IS NOT NULL"
	case 2:
		return fmt.Sprintf("%s IN (%s, %s, %s)", column, literal(), literal(), literal())
	case 3:
		return fmt.Sprintf("%s BETWEEN %s AND %s", column, literal(), literal())
	case 4:
		return fmt.Sprintf("%s %s %s", literal(), g.pick("=", "<", "<=", ">", ">="), column)
	}
	return fmt.Sprintf("%s %s %s", column, g.pick("=", "<>", "<", "<=", ">", ">=", "="), literal())
}
