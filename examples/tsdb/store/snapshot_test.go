package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
)

// copied is a leader with some writes, and a follower that has the first of them.
type copied struct {
	leader, follower *store.Replica
	folder           string
	store            *store.Store
}

func startCopied(t *testing.T, writes, followed int) *copied {
	t.Helper()
	c := &copied{folder: t.TempDir()}
	c.leader = create(t, open(t, t.TempDir()), definition(everyType()))
	c.store = open(t, c.folder)
	d := definition(everyType())
	d.Role, d.Route.ReplicaId = followerRole, 8
	c.follower = create(t, c.store, d)
	for i := range writes {
		write(t, c.leader, fmt.Sprint(i), rowsOf(t, everyType(), number(i)))
	}
	c.follow(t, followed)
	return c
}

// follow has the follower store the first n writes.
func (c *copied) follow(t *testing.T, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	if matched, _, err := c.follower.Replay(t.Context(), tail(t, c.leader, 1, n)); !matched || err != nil {
		t.Fatal(matched, err)
	}
}

// snapshot returns a copy of the leader.
func (c *copied) snapshot(t *testing.T) []byte {
	t.Helper()
	path, err := c.leader.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path) //nolint:gosec // of this test
	if err := errors.Join(err, os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	return data
}

// install puts a copy in the place of the follower, which is another replica then.
func (c *copied) install(ctx context.Context, t *testing.T, data []byte) error {
	t.Helper()
	in, err := c.store.Receive(c.follower)
	if err != nil {
		t.Fatal(err)
	}
	_, err = in.Write(data)
	if err == nil {
		_, err = in.Install(ctx, 2)
	}
	if e := in.Discard(); e != nil {
		t.Error(e)
	}
	present, e := c.store.Replica(region)
	if e != nil {
		t.Fatal(e)
	}
	c.follower = present
	return err
}

// expect checks that the follower has so many writes, serves them, and takes the rest of the leader's log.
func (c *copied) expect(t *testing.T, writes int) {
	t.Helper()
	if got := c.follower.State().StoredSeq; got != uint64(writes) { //nolint:gosec // a few
		t.Errorf("%d writes, want %d", got, writes)
	}
	if got := query(t, c.follower, &tsdbpb.QueryRequest{}); len(got) != writes {
		t.Errorf("%d rows, want %d", len(got), writes)
	}
	if left, _ := filepath.Glob(filepath.Join(c.folder, "*.tmp*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	c.follow(t, 1<<30)
	if got := c.follower.State().StoredSeq; got != c.leader.State().StoredSeq {
		t.Errorf("%d writes after the rest, want %d", got, c.leader.State().StoredSeq)
	}
}

// TestCopyReplaces: a copy of the leader brings what the replica lacked, and leaves it who it is.
func TestCopyReplaces(t *testing.T) {
	c := startCopied(t, 5, 2)
	before := c.follower
	if err := c.install(t.Context(), t, c.snapshot(t)); err != nil {
		t.Fatal(err)
	}
	if c.follower == before || c.follower.ID() != 8 || c.follower.State().Role != followerRole {
		t.Errorf("replica %s with role %s", c.follower.ID(), c.follower.State().Role)
	}
	c.expect(t, 5)
}

// TestCopyCutShort: a copy that isn't whole, wherever it ends, is refused, and the replica is served as it was.
func TestCopyCutShort(t *testing.T) {
	c := startCopied(t, 5, 2)
	whole := c.snapshot(t)
	for _, n := range []int{0, 10, 4096, len(whole) / 2, len(whole) - 4096, len(whole) - 1} {
		if err := c.install(t.Context(), t, whole[:n]); err == nil {
			t.Errorf("a copy of %d of %d bytes was taken", n, len(whole))
		}
	}
	c.expect(t, 2)
}

// TestCopyIsOutdated: a copy that was long under way doesn't take back what the replica has got of the same leader since.
func TestCopyIsOutdated(t *testing.T) {
	c := startCopied(t, 3, 0)
	old := c.snapshot(t)
	for i := range 2 {
		write(t, c.leader, fmt.Sprint("later", i), rowsOf(t, everyType(), number(10+i)))
	}
	c.follow(t, 5)
	if err := c.install(t.Context(), t, old); err == nil {
		t.Error("a copy was taken that lacks writes which the replica has")
	}
	c.expect(t, 5)
}

// TestCopyWaitsInVain: somebody reads the replica for so long that a copy can't replace it. It is served as before, and a
// later copy replaces it.
func TestCopyWaitsInVain(t *testing.T) {
	c := startCopied(t, 5, 2)
	reading, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	reader := c.follower
	go func() {
		ended <- reader.Query(context.Background(), &tsdbpb.QueryRequest{}, func(*tsdbpb.RowBatch) error {
			close(reading)
			<-goOn
			return nil
		})
	}()
	<-reading
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.install(over, t, c.snapshot(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("in use: %v, want canceled", err)
	}
	if got := query(t, c.follower, &tsdbpb.QueryRequest{}); len(got) != 2 {
		t.Errorf("%d rows, want 2", len(got))
	}
	close(goOn)
	<-ended
	if err := c.install(t.Context(), t, c.snapshot(t)); err != nil {
		t.Error(err)
	}
	c.expect(t, 5)
}

// TestForgottenWriteID: a write id is known for minutes, however many come behind it. Then the leader forgets it, and stores the
// write anew; a follower that gets both in one part, and so has not forgotten the first, stores them like the leader.
func TestForgottenWriteID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCopied(t, 0, 0)
		again := func() uint64 {
			return write(t, c.leader, "again", rowsOf(t, everyType(), number(0))).Seqs[0]
		}
		again()
		one := rowsOf(t, everyType(), number(1))
		many := make([]store.Write, 0, 1_200)
		for i := range cap(many) {
			many = append(many, store.Write{ID: fmt.Append(nil, i), Rows: one})
		}
		if _, err := c.leader.Append(t.Context(), 2, many, true, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Minute)
		write(t, c.leader, "another", one)
		if seq := again(); seq != 1 {
			t.Errorf("repeated after 4 minutes it was stored anew, at %d", seq)
		}
		time.Sleep(2 * time.Minute)
		write(t, c.leader, "yet another", one)
		if seq := again(); seq != 1_204 {
			t.Errorf("repeated after 6 minutes it was stored at %d, want 1204", seq)
		}
		c.follow(t, 1<<30)
		c.expect(t, 1_204)
	})
}
