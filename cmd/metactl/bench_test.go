package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// runBench runs one measurement against a fake cluster.
func runBench(ctx context.Context, t *testing.T, c *fakeCluster, args ...string) (report loadgen.Report, stderr string, code int) {
	t.Helper()
	var out, errOut bytes.Buffer
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.addr)
	}
	args = append([]string{"bench"}, append(args, "-o", "json", "--endpoints", strings.Join(endpoints, ","))...)
	code = newApp(streams{in: strings.NewReader(""), out: &out, err: &errOut}).run(ctx, args, os.Getenv)
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatalf("%v in %s", err, out.String())
		}
	}
	return report, errOut.String(), code
}

func fakeForBench(t *testing.T) *fakeCluster {
	c := startCluster(t, "healthy")
	t.Cleanup(c.stop)
	return c
}

func TestBenchPutCleansUp(t *testing.T) {
	c := fakeForBench(t)
	report, says, code := runBench(t.Context(), t, c, "put", "--yes", "--clients", "4", "--count", "200", "--keys", "50")
	if code != 0 || report.Operations != 200 || len(report.Errors) != 0 || report.LatencyMS.P50 <= 0 {
		t.Errorf("exit code %d, report %+v, says %s", code, report, says)
	}
	if keys := c.store.keys(); len(keys) > 0 || len(report.LeftBehind) > 0 {
		t.Errorf("left behind %q, said %q", keys, report.LeftBehind)
	}
	if want := `Writes up to 50 keys "metactl-bench/"… with values of 256 bytes, and deletes all keys under that prefix afterwards.`; !strings.Contains(says, want) {
		t.Errorf("says %q", says)
	}
}

func TestBenchNamesWhatItKeeps(t *testing.T) {
	c := fakeForBench(t)
	report, _, code := runBench(t.Context(), t, c, "put", "--yes", "--keep", "--clients", "1", "--count", "5", "--prefix", "mine/")
	if keys := c.store.keys(); code != 0 || len(keys) == 0 || !strings.HasPrefix(keys[0], "mine/") {
		t.Errorf("exit code %d, keys %q", code, keys)
	}
	if len(report.LeftBehind) != 1 || !strings.Contains(report.LeftBehind[0], `"mine/"`) {
		t.Errorf("left behind: %q", report.LeftBehind)
	}
}

func TestBenchAfterAnInterruptionCleansUp(t *testing.T) {
	c := fakeForBench(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	c.store.afterPut = func(puts int) {
		if puts == 20 {
			interrupt()
		}
	}
	report, says, code := runBench(ctx, t, c, "put", "--yes", "--clients", "2", "--duration", "1m", "--warmup", "0")
	if code != 0 || report.Operations < 10 || len(c.store.keys()) > 0 {
		t.Errorf("exit code %d, %d operations, keys %q, says %s", code, report.Operations, c.store.keys(), says)
	}
}

func TestBenchRefusesToHarm(t *testing.T) {
	c := fakeForBench(t)
	_, says, code := runBench(t.Context(), t, c, "put")
	if code != exitUsage || !strings.Contains(says, "the cluster is in use (it has 3 nodes, 3 tables)") || !strings.Contains(says, "--yes") {
		t.Errorf("in use: exit code %d, says %s", code, says)
	}
	if c.store.puts > 0 {
		t.Errorf("%d puts", c.store.puts)
	}
	c.empty.Store(true)
	c.store.values = map[string][]byte{"app/x": []byte("theirs")}
	if _, says, code := runBench(t.Context(), t, c, "put"); code != exitUsage || !strings.Contains(says, `it has keys such as "app/x"`) {
		t.Errorf("with keys only: exit code %d, says %s", code, says)
	}
	c.store.values = nil
	if _, says, code := runBench(t.Context(), t, c, "put", "--clients", "1", "--count", "5"); code != 0 {
		t.Errorf("empty: exit code %d, says %s", code, says)
	}
	c.store.values = map[string][]byte{"metactl-bench/x": []byte("theirs")}
	k := &kvOptions{prefix: "metactl-bench/", keys: 1, valueSize: 1}
	cl := fakeClient(t, c)
	if err := k.mayOverwrite(t.Context(), cl, &benchOptions{}); err == nil || !strings.Contains(err.Error(), `"metactl-bench/x"`) {
		t.Errorf("keys of somebody: %v", err)
	}
	if err := k.mayOverwrite(t.Context(), cl, &benchOptions{yes: true}); err != nil {
		t.Errorf("with --yes: %v", err)
	}
}

func TestBenchFollowsTheLeader(t *testing.T) {
	c := fakeForBench(t)
	c.store.afterPut = func(puts int) {
		if puts == 50 {
			c.leads.Store(1)
		}
	}
	report, says, code := runBench(t.Context(), t, c, "put", "--yes", "--clients", "3", "--count", "300")
	failed := report.Errors["NOT_LEADER"]
	if code != 0 || failed == 0 || report.Operations+failed != 300 || report.Operations < 250 {
		t.Errorf("exit code %d, report %+v, says %s", code, report, says)
	}
	if asked, _ := report.Settings["asked"].([]any); len(asked) != 1 || asked[0] != "m2" {
		t.Errorf("asked %v at the end", report.Settings["asked"])
	}
}

// A member that hangs holds the measurement no longer than --timeout.
func TestBenchGivesUpOnAMemberThatHangs(t *testing.T) {
	c := fakeForBench(t)
	resume := make(chan struct{})
	var held atomic.Bool
	c.store.afterPut = func(puts int) {
		if puts > 20 && held.CompareAndSwap(false, true) {
			<-resume
		}
	}
	defer close(resume)
	began := time.Now()
	report, says, code := runBench(t.Context(), t, c, "put", "--yes", "--clients", "1", "--count", "100", "--timeout", "1s")
	if code != 0 || report.Errors["CANCELED"] != 1 || report.Operations != 99 {
		t.Errorf("exit code %d, report %+v, says %s", code, report, says)
	}
	if took := time.Since(began); report.LongestPauseMS < 1000 || took > 30*time.Second {
		t.Errorf("took %v, longest pause %v ms", took, report.LongestPauseMS)
	}
}

func TestBenchRangeReadsWhatItWrote(t *testing.T) {
	c := fakeForBench(t)
	for _, level := range []string{"linearizable", "stale"} {
		report, says, code := runBench(t.Context(), t, c, "range", "--yes", "--read-level", level, "--members", "all",
			"--clients", "4", "--keys", "20", "--count", "200")
		refused := report.Errors["NOT_LEADER"]
		if code != 0 || report.Operations+refused != 200 || (level == "stale") != (refused == 0) {
			t.Errorf("%s: exit code %d, report %+v, says %s", level, code, report, says)
		}
	}
	report, says, code := runBench(t.Context(), t, c, "range", "--yes", "--fill=false", "--clients", "1", "--count", "3")
	if code != 0 || report.Errors[errMissingKey.Error()] != 3 {
		t.Errorf("without keys: exit code %d, report %+v, says %s", code, report, says)
	}
}

func TestBenchRouteLooksUpTables(t *testing.T) {
	c := fakeForBench(t)
	report, says, code := runBench(t.Context(), t, c, "route", "--yes", "--schema", "public", "--clients", "2", "--count", "50")
	if code != 0 || report.Operations != 50 || report.Items != "routes" || report.ItemsPerSecond != report.PerSecond {
		t.Errorf("exit code %d, report %+v, says %s", code, report, says)
	}
	if _, says, code := runBench(t.Context(), t, c, "route", "--yes"); code != exitUsage || !strings.Contains(says, "create-table") {
		t.Errorf("without tables: exit code %d, says %s", code, says)
	}
}

// Regions that nobody made must not come to datanodes that serve.
func TestBenchCreateTableRefusesDatanodes(t *testing.T) {
	c := fakeForBench(t)
	_, says, code := runBench(t.Context(), t, c, "create-table", "--yes", "--nodes", "3")
	if code != exitUsage || !strings.Contains(says, "1 (10.0.1.1:4001)") {
		t.Errorf("exit code %d, says %s", code, says)
	}
}

func TestBenchFlagsAreChecked(t *testing.T) {
	c := fakeForBench(t)
	for _, args := range [][]string{
		{"put", "--clients", "0"}, {"route", "--tables-per-call", "0"}, {"create-table", "--nodes", "0"}, {"create-table", "--nodes", "1"}, {"put", "--duration", "0"}, {"put", "--value-size", "0"}, {"put", "--prefix", ""},
		{"range", "--read-level", "fresh"}, {"range", "--members", "m1"}, {"put", "--keys", "0"},
		{"watch", "--watches", "0"}, {"txn", "--prefix", ""},
		{"heartbeat", "--nodes", "0"}, {"heartbeat", "--changed", "101%"}, {"heartbeat", "--regions", "0", "--nodes", "3"}, {"heartbeat", "--replicas", "2", "--nodes", "1"},
	} {
		if _, says, code := runBench(t.Context(), t, c, args...); code != exitUsage || !strings.Contains(says, args[1]) {
			t.Errorf("%v: exit code %d, says %s", args, code, says)
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a\xff": "b", "\xff\xff": "\x00", "ab/": "ab0"} {
		if got := string(prefixEnd([]byte(prefix))); got != want {
			t.Errorf("prefixEnd(%q) = %q, want %q", prefix, got, want)
		}
	}
}
