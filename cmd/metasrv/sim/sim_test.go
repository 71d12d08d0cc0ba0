package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/metasrv/metasrv/client/clienttest"
	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
	"github.com/metasrv/metasrv/cmd/metasrv/internal/workload"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(cleanerVar); dir != "" {
		os.Exit(clean(dir))
	}
	// Schedules make much garbage and keep little. One that ends by a panic shows what all goroutines do.
	debug.SetGCPercent(400)
	debug.SetTraceback("all")
	os.Exit(runInFolder(func() (code int) {
		code = m.Run()
		if err := goleak.Find(); code == 0 && err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
		return code
	}))
}

// verbose tells the faults as they come.
var verbose = os.Getenv("SEED") != ""

// Some schedules of each run of the tests; `make linear` runs thousands.
const fewSchedules = 12

// checkLimit bounds the time to judge one part of a history.
const checkLimit = 10 * time.Second

// What clients see of three members under faults is linearizable: the store, tables, ids, revisions.
func TestSchedules(t *testing.T) {
	first, count := number(t, "FIRST", uint64(time.Now().UnixNano()%1e9)), number(t, "SCHEDULES", fewSchedules)
	if seed := os.Getenv("SEED"); seed != "" {
		first, count = number(t, "SEED", 0), 1
	}
	until := time.Now().Add(time.Duration(number(t, "SECONDS_LIMIT", 3600)) * time.Second)
	var total linear.Report
	done := uint64(0)
	for ; done < count && !t.Failed() && time.Now().Before(until); done++ {
		r := runSchedule(t, newSchedule(first+done))
		total.Ops, total.Unknown = total.Ops+r.Ops, total.Unknown+r.Unknown
		total.Undecided = append(total.Undecided, r.Undecided...)
	}
	t.Logf("%d schedules from seed %d on: %s", done, first, &total)
}

// runSchedule runs one schedule and fails the test where what its clients saw is wrong.
func runSchedule(t *testing.T, s schedule) *linear.Report {
	t.Helper()
	r := judge(t, s)
	if r.Failed() {
		t.Errorf("seed %d: %s", s.seed, r)
	}
	if t.Failed() {
		t.Logf("repeat it: SEED=%d make linear (the order of goroutines is not in the seed: try it some times)", s.seed)
	}
	return r
}

// judge runs one schedule and judges what its clients saw.
func judge(t *testing.T, s schedule) *linear.Report {
	t.Helper()
	dir := filepath.Join(root, fmt.Sprint(s.seed))
	defer func() { _ = os.RemoveAll(dir) }()
	var history linear.History
	note(fmt.Sprint(s.seed))
	defer bound(s.seed).Stop()
	var problems []string
	synctest.Test(t, func(t *testing.T) { problems = simulate(t, s, dir, &history) })
	r, err := linear.Check(history.Ops(), checkLimit, outDir(s.seed))
	if err != nil {
		t.Fatal(err)
	}
	r.Problems = append(r.Problems, problems...)
	return r
}

const (
	// lifeLimit bounds the simulated time of a schedule: one that goes on and on shows where, instead of hanging.
	lifeLimit = 10 * time.Minute
	// realLimit bounds its real time, which is a tenth of a second: simulated time stands still while a goroutine waits
	// for a mutex or computes without end.
	realLimit = 60 * time.Second
)

// bound ends the process, with the stacks of all goroutines, if a schedule takes too long. It must be called outside of
// the simulated time.
func bound(seed uint64) *time.Timer {
	return time.AfterFunc(realLimit, func() {
		panic(fmt.Sprintf("seed %d: not ended after %s: look for a goroutine that waits for a sync.Mutex or runs", seed, realLimit))
	})
}

// simulate is a whole life of a cluster. It returns what was wrong beside what its clients saw.
func simulate(t *testing.T, s schedule, dir string, history *linear.History) (problems []string) {
	limit := time.AfterFunc(lifeLimit, func() { panic(fmt.Sprintf("seed %d: not ended after %s of simulated time", s.seed, lifeLimit)) })
	defer limit.Stop()
	c := newCluster(t, s, dir)
	defer func() {
		c.end()
		problems = c.problems
	}()
	node := clienttest.StartDatanode(t, c.library, 1)
	defer node.Stop()

	load := &workload.Config{
		Seed: s.seed, History: history, Client: c.library, Workers: 6, Pause: 60 * time.Millisecond, Timeout: 1500 * time.Millisecond, Attempt: 250 * time.Millisecond,
		Groups: []string{"g", "h"}, Tables: []string{"t", "u"}, TableWorkers: 1,
		Incarnation: func(uint64) uint64 { return node.Incarnation() }, SessionTTL: s.sessionTTL,
	}
	for _, m := range c.members {
		load.Members = append(load.Members, workload.Member{ID: m.id, Conn: m.conn, Life: m.lifeName})
	}
	if s.leader >= 0 {
		c.transfer(c.members[s.leader])
	}
	ctx, stop := context.WithTimeout(t.Context(), s.duration)
	defer stop()
	go c.disturb(ctx)
	workload.Run(ctx, load)
	c.settle()
	c.verify(load)
	return nil
}

// outDir is where histories are shown that are wrong.
func outDir(seed uint64) string {
	dir := os.Getenv("LINEAR_OUT")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "metasrv-linear")
	}
	return filepath.Join(dir, fmt.Sprintf("seed-%d", seed))
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
