package frontend_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// code returns the MySQL error code of an error, 0 for others.
func code(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// TestCreateErrors: what metasrv refuses has its MySQL code and names the object.
func TestCreateErrors(t *testing.T) {
	s := start(t, 0)
	for _, c := range []struct {
		statement string
		code      uint16
		says      string
	}{
		{"CREATE TABLE t (k INT PRIMARY KEY)", 1005, "datanode"},
		{"CREATE TABLE nothing.t (k INT PRIMARY KEY)", 1049, "nothing"},
		{"CREATE TABLE `a.b` (k INT PRIMARY KEY)", 1103, "a.b"},
		{"CREATE DATABASE public", 1007, "public"},
		{"CREATE DATABASE `a/b`", 1102, "a/b"},
		{"DROP TABLE t", 1146, "t"},
		{"DROP DATABASE nothing", 1049, "nothing"},
	} {
		_, err := s.db.Exec(c.statement)
		if code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %d …%s…", c.statement, err, c.code, c.says)
		}
	}
	s.startDatanode(1, "127.0.0.1:0", t.TempDir())
	s.eventually("the datanode is live", func() bool { return s.live() == 2 })
	if _, err := s.db.Exec("CREATE TABLE t (k INT PRIMARY KEY) COMMENT 'replicas=2'"); code(err) != 1005 {
		t.Errorf("two replicas on one datanode: %v", err)
	}
	s.exec("CREATE TABLE t (k INT PRIMARY KEY)")
	if _, err := s.db.Exec("CREATE TABLE t (k INT PRIMARY KEY)"); code(err) != 1050 {
		t.Errorf("existing table: %v", err)
	}
	s.exec("CREATE TABLE IF NOT EXISTS t (j INT PRIMARY KEY)")
	if _, err := s.db.Exec("DROP DATABASE public"); code(err) != 1010 {
		t.Errorf("database with tables: %v", err)
	}
	s.exec("CREATE DATABASE two")
	s.exec("CREATE TABLE two.t (j INT PRIMARY KEY)")
	s.exec("INSERT INTO two.t VALUES (1)")
	s.exec("INSERT INTO t SELECT j + 1 FROM two.t")
	if got := s.query("SELECT a.k, b.j FROM t a, two.t b"); got != "2|1" {
		t.Errorf("two databases: %s", got)
	}
	s.exec("DROP TABLE two.t")
	s.exec("DROP DATABASE two")
}

// TestDatanodeStops: without one of two datanodes reads and writes go on with the other one after a while, nothing is
// missing, and all is on both again some time after the first one is back.
func TestDatanodeStops(t *testing.T) {
	s := start(t, 2)
	s.exec(createMetrics)
	insert := func(second int) error {
		_, err := s.db.Exec(fmt.Sprintf(`INSERT INTO metrics (ts, host, cpu) VALUES
			('2024-01-01 00:00:%02d','alpha',1), ('2024-01-01 00:00:%02d','mike',1), ('2024-01-01 00:00:%02d','zulu',1)`,
			second, second, second))
		return err
	}
	if err := insert(0); err != nil {
		t.Fatal(err)
	}
	for id := uint64(1); id <= 2; id++ {
		s.eventually("all replicas are in sync", s.allInSync)
		stopped := s.stopDatanode(id)
		s.eventually("reads without the datanode", func() bool {
			got, err := tryQuery(s.db, "SELECT count(*), sum(cpu) FROM metrics WHERE ts = '2024-01-01'")
			if err == nil && got[0] != "3|3" {
				t.Fatalf("without datanode %d: %s", id, got)
			}
			return err == nil
		})
		s.eventually("writes without the datanode", func() bool { return insert(int(id)) == nil })
		if status, text := s.post("", fmt.Sprintf("metrics,host=alpha cpu=1 17040673%02d000000000", id)); status != 204 {
			t.Errorf("line protocol without datanode %d: %d %s", id, status, text)
		}
		s.startDatanode(id, stopped.addr, stopped.dir)
	}
	s.eventually("all replicas are in sync", s.allInSync)
	if got := s.query("SELECT count(*), sum(cpu) FROM metrics WHERE ts < '2024-01-01 00:00:10'"); got != "9|9" {
		t.Errorf("in the end: %s", got)
	}
	s.stopDatanode(1)
	s.stopDatanode(2)
	if got, err := tryQuery(s.db, "SELECT * FROM metrics"); err == nil {
		t.Errorf("without datanodes: %d rows and no error", len(got))
	}
	if got, err := tryQuery(s.db, "SELECT count(*) FROM metrics"); err == nil {
		t.Errorf("without datanodes: count %s and no error", got)
	}
}

// allInSync reports whether every replica of every region is in the in-sync set.
func (s *system) allInSync() bool {
	resp, err := s.client.Cluster().ListRegions(s.t.Context(), &metasrvpb.ListRegionsRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, region := range resp.GetRegions() {
		for _, replica := range region.GetReplicas() {
			if !replica.GetInSync() {
				return false
			}
		}
	}
	return len(resp.GetRegions()) > 0
}

// TestRegionLeaderAway: a write that no datanode takes says in one line of which region and node it was, and why.
func TestRegionLeaderAway(t *testing.T) {
	s := start(t, 1)
	s.exec("CREATE TABLE t (k INT PRIMARY KEY)")
	addr := s.stopDatanode(1).addr
	_, err := s.db.Exec("INSERT INTO t VALUES (1)")
	want := regexp.MustCompile(`: region 1024/0 of greptime.public.t takes no writes: node 1 at ` +
		regexp.QuoteMeta(addr) + `: connection refused \(tried for 2(\.\d)?s\)$`)
	if err == nil || !want.MatchString(err.Error()) {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
