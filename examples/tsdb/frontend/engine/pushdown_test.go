package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// text returns conditions as people read them.
func text(conditions []cluster.Condition) string {
	var parts []string
	for _, c := range conditions {
		op := strings.TrimPrefix(c.Comparison.String(), "COMPARISON_")
		var values []string
		for _, v := range c.Values {
			if ts, ok := v.(column.Timestamp); ok {
				v = ts.Time().Format("15:04:05.000000000")
			}
			values = append(values, fmt.Sprintf("%v", v))
		}
		parts = append(parts, strings.TrimSpace(c.Column+" "+op+" "+strings.Join(values, ",")))
	}
	return strings.Join(parts, "; ")
}

// TestPushDown says what of a query's filter reaches the datanodes.
func TestPushDown(t *testing.T) {
	store := newMemoryStore()
	db := serve(t, store)
	exec(t, db, `CREATE TABLE t (i BIGINT, u BIGINT UNSIGNED, d DOUBLE, f FLOAT, s VARCHAR(9), b BOOLEAN,
		x VARBINARY(9), ts DATETIME(3), day DATE)`)
	exec(t, db, "CREATE TABLE other (i BIGINT, s VARCHAR(9))")
	exec(t, db, "INSERT INTO other VALUES (1, 'a')")
	for _, c := range []struct{ from, want string }{
		{"t", ""},
		{"t WHERE i = 5", "i EQ 5"},
		{"t WHERE 5 < i", "i GT 5"},
		{"t AS a WHERE a.i >= -5", "i GE -5"},
		{"t WHERE i BETWEEN 1 AND 3 AND s = 'a'", "i GE 1; i LE 3; s EQ a"},
		{"t WHERE i IN (1, 2)", "i IN 1,2"},
		{"t WHERE i = 1 OR i = 2 OR i IN (3, 4)", "i IN 1,2,3,4"},
		{"t WHERE i = 1 OR s = 'a'", ""},
		{"t WHERE i IS NULL AND s IS NOT NULL", "i IS_NULL; s IS_NOT_NULL"},
		{"t WHERE i = 1.5", ""},
		{"t WHERE i = '5'", ""},
		{"t WHERE i + 1 = 5", ""},
		{"t WHERE u = -1", ""},
		{"t WHERE u = 18446744073709551615", "u EQ 18446744073709551615"},
		{"t WHERE d > 0.1", "d GE 0.1"},
		{"t WHERE d < 3", "d LE 3"},
		{"t WHERE f = 0.1", ""},
		{"t WHERE b = true", "b EQ true"},
		{"t WHERE b = 2", ""},
		{"t WHERE x = 'a'", ""},
		{"t WHERE s = 5", ""},
		{"t WHERE s COLLATE utf8mb4_0900_ai_ci = 'A'", ""},
		{"t WHERE s = 'A' COLLATE utf8mb4_0900_ai_ci", ""},
		{"t WHERE s LIKE 'a%'", ""},
		{"t WHERE s = NULL", ""},
		{"t WHERE i = (SELECT 1)", "i EQ 1"},
		{"t WHERE rand() < 2 AND i = 3", "i EQ 3"},
		// A column of milliseconds shows stored nanoseconds cut to them.
		{"t WHERE ts = '2024-01-01 00:00:01'", "ts GE 00:00:01.000000000; ts LT 00:00:01.001000000"},
		{"t WHERE ts > '2024-01-01 00:00:01'", "ts GE 00:00:01.001000000"},
		{"t WHERE ts <= '2024-01-01 00:00:01'", "ts LT 00:00:01.001000000"},
		{"t WHERE ts < '2024-01-01 00:00:01'", "ts LT 00:00:01.000000000"},
		{"t WHERE ts < '2024-01-01 00:00:01.0005'", "ts LT 00:00:01.001000000"},
		{"t WHERE ts >= DATE_SUB('2024-01-01 00:00:05', INTERVAL 2 SECOND)", "ts GE 00:00:03.000000000"},
		{"t WHERE day = '2024-01-01'", "day GE 00:00:00.000000000; day LT 00:00:00.000000000"},
		{"other JOIN t ON other.i = t.i AND t.s = 'x' WHERE other.s = 'a' AND t.u > 4", "s EQ x; u GT 4; s EQ x"},
		{"other WHERE i IN (SELECT i FROM t WHERE s = 'x')", "s EQ x"},
		{"(SELECT * FROM t) q WHERE q.i = 4", "i EQ 4"},
	} {
		store.mu.Lock()
		store.scans, store.scanned = nil, nil
		store.mu.Unlock()
		if _, err := tryQuery(db, "SELECT count(*) FROM "+c.from); err != nil {
			t.Errorf("%s: %v", c.from, err)
			continue
		}
		got := "no scan"
		store.mu.Lock()
		for i, q := range store.scans {
			if store.scanned[i] == "t" {
				got = text(q.Conditions)
			}
		}
		store.mu.Unlock()
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.from, got, c.want)
		}
	}
}

// TestProjection: datanodes send only the columns that a query needs.
func TestProjection(t *testing.T) {
	store := newMemoryStore()
	db := serve(t, store)
	exec(t, db, "CREATE TABLE t (a INT, b INT, c INT)")
	for query, want := range map[string]string{
		"SELECT count(*) FROM t":         "",
		"SELECT b FROM t":                "b",
		"SELECT c FROM t WHERE a > b":    "a,b,c",
		"SELECT * FROM t":                "a,b,c",
		"SELECT sum(c) FROM t WHERE b=1": "b,c",
	} {
		if _, err := tryQuery(db, query); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range store.lastScan().Columns {
			names = append(names, c.GetName())
		}
		if got := strings.Join(names, ","); got != want {
			t.Errorf("%s reads %s, want %s", query, got, want)
		}
	}
}

// TestLike: the engine's own rewriting of LIKE loses rows.
func TestLike(t *testing.T) {
	db := serve(t, newMemoryStore())
	exec(t, db, "CREATE TABLE t (s VARCHAR(9))")
	exec(t, db, "INSERT INTO t VALUES ('a'), ('ab'), ('a日'), ('b'), ('a_'), ('A')")
	for statement, want := range map[string]string{
		"SELECT count(*) FROM t WHERE s LIKE 'a%'":                                                    "4",
		"SELECT count(*) FROM t WHERE s LIKE 'a|_' ESCAPE '|'":                                        "1",
		"SELECT count(*) FROM t WHERE s NOT LIKE 'a%'":                                                "2",
		"SELECT count(*) FROM t WHERE s IN (SELECT s FROM t WHERE s LIKE 'a%')":                       "4",
		"SELECT count(*) FROM (SELECT s FROM t WHERE s LIKE 'a%') q":                                  "4",
		"SELECT count(*) FROM t a JOIN t b ON a.s = b.s AND a.s LIKE 'a%'":                            "4",
		"SELECT count(*) FROM t a WHERE EXISTS (SELECT 1 FROM t b WHERE b.s = a.s AND b.s LIKE 'a%')": "4",
		"SELECT (SELECT count(*) FROM t WHERE s LIKE 'a%')":                                           "4",
	} {
		if got := query(t, db, statement); got != want {
			t.Errorf("%s: %s, want %s", statement, got, want)
		}
	}
}
