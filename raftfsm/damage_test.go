package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv/kv"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// seedOf returns the seed of a random test: METASRV_TEST_SEED, or one of its own.
func seedOf(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("METASRV_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("METASRV_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// stoppedMember leaves the folder of a member that wrote log and image and was ended in between, and returns it with
// the state that it had.
func stoppedMember(t *testing.T) (*cluster, string, map[string]string) {
	t.Helper()
	c := newCluster(t, 1, func(c *cluster) { c.log = LogRetention{Trailing: 50, Threshold: 20, Interval: 20 * time.Millisecond} })
	_, n := c.leader()
	for i := range 400 {
		if _, err := put(within(t, time.Minute), n, key(i), strings.Repeat(fmt.Sprint(i), i%40)); err != nil {
			t.Fatal(err)
		}
		if i == 300 {
			eventually(t, "the log is shortened", func() bool {
				first, err := n.store.FirstIndex()
				return err == nil && first > 1 && n.flusher.flushed.Load() > 100
			})
		}
	}
	want := contentOf(n.View())
	n.fail(errors.New("ended without a last flush"))
	_ = n.Close(context.Background())
	c.nodes[0] = nil
	return c, c.folder(0), want
}

func copyFolder(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// damage changes a file at random and says how.
func damage(t *testing.T, path string, random *rand.Rand) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := random.IntN(len(data))
	how := ""
	switch random.IntN(10) {
	case 0:
		data, how = data[:at], fmt.Sprintf("cut off at byte %d of %d", at, len(data))
	case 1:
		at = at / 4096 * 4096
		clear(data[at:min(len(data), at+4096)])
		how = fmt.Sprintf("page at byte %d zeroed", at)
	case 2:
		n := min(len(data)-at, 1+random.IntN(64))
		for i := range n {
			data[at+i] = byte(random.Uint32())
		}
		how = fmt.Sprintf("%d bytes at %d overwritten", n, at)
	default:
		bit := random.IntN(8)
		data[at] ^= 1 << bit
		how = fmt.Sprintf("bit %d of byte %d flipped", bit, at)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return how
}

// reopen reads log and image as a starting member does, and replays the log.
func reopen(dir string) (_ state.View, err error) {
	var failure error
	fail := func(err error) { failure = errors.Join(failure, err) }
	n := &Node{cfg: Config{DataDir: dir, CommandVersion: machine.EntryVersion, Appliers: []state.Applier{kv.NewApplier()}, Timing: Timing{Flush: time.Hour, FlushBytes: 1 << 30}}, log: testLogger()}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer n.cancel()
	n.failed = make(chan struct{})
	defer func() {
		if n.flusher != nil {
			err = errors.Join(err, n.flusher.close(true))
		}
		if n.store != nil {
			err = errors.Join(err, n.store.Close())
		}
	}()
	if err := n.openStores(); err != nil {
		return nil, err
	}
	n.fsm.fail, n.store.fail, n.flusher.fail = fail, fail, fail
	last, err := n.store.LastIndex()
	if err != nil {
		return nil, err
	}
	for i := n.fsm.current.Load().index() + 1; i <= last; i++ {
		var entry raft.Log
		if err := n.store.GetLog(i, &entry); err != nil {
			return nil, err
		}
		if entry.Type == raft.LogCommand {
			n.fsm.Apply(&entry)
		}
	}
	return n.View(), failure
}

// A changed byte anywhere in the files of a member is found, or changes nothing: never a panic, never another state.
func TestDamageIsFoundOrHarmless(t *testing.T) {
	_, folder, want := stoppedMember(t)
	if v, err := reopen(copyFolder(t, folder)); err != nil || !maps.Equal(contentOf(v), want) {
		t.Fatalf("undamaged: %v", err)
	}
	random := seedOf(t)
	rounds, found := 150, 0
	if s := os.Getenv("METASRV_TEST_ROUNDS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	dir := t.TempDir()
	for range rounds {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
		file := []string{"raft.db", "state.db"}[random.IntN(2)]
		how := damage(t, filepath.Join(dir, file), random)
		v, err := reopen(dir)
		switch {
		case err == nil:
			if got := contentOf(v); !maps.Equal(got, want) {
				t.Errorf("%s, %s: another state of %d keys, want %d: %s", file, how, len(got), len(want), difference(got, want))
			}
		case !strings.Contains(err.Error(), "remove this member from the cluster"):
			t.Errorf("%s, %s: not told what to do: %v", file, how, err)
		default:
			found++
		}
	}
	t.Logf("%d of %d damages were found, the others changed nothing", found, rounds)
}

func difference(got, want map[string]string) string {
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			return fmt.Sprintf("%s is %q, want %q", k, g, v)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			return fmt.Sprintf("%s is %q, want none", k, v)
		}
	}
	return "none"
}
