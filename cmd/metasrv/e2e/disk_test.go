package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// The disk of all members runs full: writes are refused by name, reads go on, no process ends, and with space writes go
// on without a restart.
func TestFullDisk(t *testing.T) {
	for store, diskMiB := range map[string]int{"boltdb": 256, "wal": 256 + 3*64} { // a segment of 64 MiB is there from the start
		t.Run(store, func(t *testing.T) { fullDisk(t, store, diskMiB) })
	}
}

func fullDisk(t *testing.T, store string, diskMiB int) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMiB)); err != nil {
		t.Skipf("no small file system: %v", err)
	}
	// It has no name from here on, so that it ends with the processes that use it, also where the test is killed.
	root, err := os.Open(dir)
	if err := errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	dir = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.Fd())
	c := newClusterIn(t, dir, "--min-free-disk", "64MiB", "--log-store", store)
	leader := c.leader()
	kvs := metasrvpb.NewStoreClient(leader.conn)
	put := func(key string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := kvs.Put(ctx, &metasrvpb.PutRequest{Key: []byte(key), Value: []byte("v")})
		return err
	}
	if err := put("before"); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 200<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "writes are refused for the full disk", func() bool { return reasonOf(put("refused")) == "DISK_FULL" })
	t.Logf("refused with: %v", put("refused"))
	if err := fillUp(ballast); err != nil { // to the last byte
		t.Fatal(err)
	}
	for range 20 {
		read, err := kvs.Range(t.Context(), &metasrvpb.RangeRequest{Key: []byte("before")})
		if err != nil || len(read.Kvs) != 1 {
			t.Fatalf("a linearizable read on a full disk: %v", err)
		}
		if reason := reasonOf(put("refused")); reason != "DISK_FULL" {
			t.Fatalf("a write on a full disk ended with %q", reason)
		}
	}
	member, err := metasrvpb.NewClusterClient(leader.conn).Status(t.Context(), &metasrvpb.StatusRequest{})
	if err != nil || member.DiskFull == "" {
		t.Errorf("the status of the member says %v, %v", member, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "writes go on", func() bool { return put("after") == nil })
	for _, m := range c.members {
		select {
		case <-m.done:
			t.Errorf("member %s has ended", m.id)
		default:
		}
	}
	for _, key := range []string{"before", "after"} {
		if read, err := kvs.Range(t.Context(), &metasrvpb.RangeRequest{Key: []byte(key)}); err != nil || len(read.Kvs) != 1 {
			t.Errorf("%s was acknowledged and is lost: %v", key, err)
		}
	}
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

// fillUp makes a file as large as its disk allows.
func fillUp(path string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return nil
}

// Members are killed again and again, one, two or all at once, while clients write: every acknowledged write is there.
// METASRV_KILL_SECONDS makes it last longer.
func TestEveryAcknowledgedWriteSurvivesKills(t *testing.T) {
	for _, store := range []string{"boltdb", "wal"} {
		t.Run(store, func(t *testing.T) { killUnderLoad(t, newCluster(t, "--log-store", store)) })
	}
}

func killUnderLoad(t *testing.T, c *cluster) {
	t.Helper()
	cl := c.client()
	random := rand.New(rand.NewPCG(seed(t), 1))
	length := 5 * time.Second
	if s, err := strconv.Atoi(os.Getenv("METASRV_KILL_SECONDS")); err == nil {
		length = time.Duration(s) * time.Second
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	acknowledged := make([]int, 8)
	for w := range acknowledged {
		writers.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				_, err := cl.Store().Put(ctx, &metasrvpb.PutRequest{Key: fmt.Appendf(nil, "w%d", w), Value: fmt.Append(nil, i)})
				if err == nil {
					acknowledged[w] = i
				}
			}
		})
	}
	kills := 0
	for end := time.Now().Add(length); time.Now().Before(end); kills++ {
		time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond) // load between two kills
		victims := random.Perm(3)[:1+random.IntN(3)]
		for _, v := range victims {
			c.kill(c.members[v])
		}
		for _, v := range victims {
			c.start(c.members[v])
		}
	}
	c.leader()
	stop()
	writers.Wait()
	for w, last := range acknowledged {
		read, err := cl.Store().Range(t.Context(), &metasrvpb.RangeRequest{Key: fmt.Appendf(nil, "w%d", w)})
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if len(read.Kvs) == 1 {
			got, _ = strconv.Atoi(string(read.Kvs[0].Value))
		}
		// A write that was under way at the end, or whose answer was lost, may be there.
		if got < last {
			t.Errorf("writer %d: %d is there, %d was acknowledged", w, got, last)
		}
	}
	t.Logf("%d times killed, acknowledged %v", kills, acknowledged)
}

func seed(t *testing.T) uint64 {
	t.Helper()
	s, err := strconv.ParseUint(os.Getenv("METASRV_TEST_SEED"), 10, 64)
	if err != nil {
		s = rand.Uint64()
	}
	t.Logf("METASRV_TEST_SEED=%d", s)
	return s
}
