package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// repeated returns how often a random test is repeated: METASRV_TEST_ROUNDS times as often as by default.
func repeated(n int) int {
	if factor, err := strconv.Atoi(os.Getenv("METASRV_TEST_ROUNDS")); err == nil {
		return n * factor
	}
	return n
}

// memoryDir returns a folder whose files are synced at once, where there is such a file system.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "metasrv-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// stoppedMember leaves the folder of a member that wrote log and image and was ended in between, and returns it with
// the state that it had.
func stoppedMember(t *testing.T, kind LogStore) (*cluster, string, map[string]string) {
	t.Helper()
	c := newCluster(t, 1, func(c *cluster) {
		c.log = LogRetention{Trailing: 50, Threshold: 20, Interval: 20 * time.Millisecond}
		c.configure = func(_ int, cfg *Config) { cfg.LogStore, cfg.wal.segment = kind, smallSegment }
	})
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

// sparse is a file that ends in zeros, as those of bbolt do.
type sparse struct {
	data []byte
	size int64
}

// readSparse returns the content of a file, nothing where it is not there.
func readSparse(t *testing.T, path string) sparse {
	t.Helper()
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return sparse{}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s := sparse{size: info.Size()}
	for chunk := make([]byte, 256<<10); ; {
		n, _ := io.ReadFull(file, chunk)
		if allZero(chunk[:n]) {
			s.data = bytes.TrimRight(s.data, "\x00")
			return s
		}
		s.data = append(s.data, chunk[:n]...)
	}
}

func (s sparse) write(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, s.data, 0o600), os.Truncate(path, s.size)); err != nil {
		t.Fatal(err)
	}
}

// damage returns a file that was changed at random, and how.
func damage(file sparse, random *rand.Rand) (sparse, string) {
	data := bytes.Clone(file.data)
	at := random.IntN(len(data))
	how := ""
	switch random.IntN(10) {
	case 0:
		return sparse{data[:at], int64(at)}, fmt.Sprintf("cut off at byte %d of %d", at, file.size)
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
	return sparse{data, file.size}, how
}

// reopen reads log and image as a starting member does, and replays the log.
func reopen(dir string, kind LogStore) (_ state.View, err error) {
	var failure error
	fail := func(err error) { failure = errors.Join(failure, err) }
	n := &Node{cfg: Config{DataDir: dir, LogStore: kind, wal: walOptions{segment: smallSegment}, CommandVersion: machine.EntryVersion, Appliers: []state.Applier{kv.NewApplier()}, Timing: Timing{Flush: time.Hour, FlushBytes: 1 << 30}}, log: testLogger()}
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
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		t.Run(string(kind), func(t *testing.T) { damageIsFoundOrHarmless(t, kind) })
	}
}

// filesOf returns the names of all files with data in the folder of a member.
func filesOf(t *testing.T, folder string) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.db", "wal/*"} {
		paths, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			name, err := filepath.Rel(folder, path)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	return names
}

func damageIsFoundOrHarmless(t *testing.T, kind LogStore) {
	_, folder, want := stoppedMember(t, kind)
	random := seedOf(t)
	names := filesOf(t, folder)
	t.Logf("files: %v", names)
	files := map[string]sparse{}
	for _, name := range names {
		files[name] = readSparse(t, filepath.Join(folder, name))
	}
	rounds, found := repeated(400), 0
	dir := memoryDir(t)
	for round := range rounds {
		writeOnly(t, dir, files)
		file, how := names[random.IntN(len(names))], "not damaged"
		if round > 0 {
			var changed sparse
			changed, how = damage(files[file], random)
			_ = os.Remove(filepath.Join(dir, file))
			changed.write(t, filepath.Join(dir, file))
		}
		v, err := reopen(dir, kind)
		switch {
		case err == nil:
			if got := contentOf(v); !maps.Equal(got, want) {
				t.Errorf("%s, %s: another state of %d keys, want %d: %s", file, how, len(got), len(want), difference(got, want))
			}
		case !strings.Contains(err.Error(), "remove this member from the cluster"):
			t.Errorf("%s, %s: not told what to do: %v", file, how, err)
		case round == 0:
			t.Fatalf("undamaged: %v", err)
		default:
			found++
		}
	}
	t.Logf("%d of %d damages were found, the others changed nothing", found, rounds)
}

// writeOnly makes the files of a folder, and removes all others.
func writeOnly(t *testing.T, dir string, files map[string]sparse) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(walPath(dir), 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		content.write(t, filepath.Join(dir, name))
	}
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
