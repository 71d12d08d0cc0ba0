package raftfsm

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// later is a kind of command that came with version 2.
const later = storagepb.CommandKind(2000)

// build makes the members of a cluster run builds that know the given versions; a change counts at the next start.
func build(versions []uint32) func(*cluster) {
	laterApplier := state.NewApplier(state.On(later, func(tx state.Tx, c *storagepb.Put) (*emptypb.Empty, error) {
		tx.Put("later/"+string(c.Key), c.Value)
		return &emptypb.Empty{}, nil
	}).Since(2))
	return func(c *cluster) {
		c.log = LogRetention{Trailing: 10, Threshold: 20, Interval: 20 * time.Millisecond}
		c.configure = func(i int, cfg *Config) {
			cfg.CommandVersion = versions[i]
			if versions[i] > 1 {
				cfg.Appliers = append(cfg.Appliers, laterApplier)
			}
		}
	}
}

func proposeLater(t *testing.T, n *Node) error {
	t.Helper()
	_, err := n.Propose(within(t, 10*time.Second), state.Proposal{Kind: later, Payload: &storagepb.Put{Key: []byte("x"), Value: []byte("1")}})
	return err
}

func (c *cluster) putMany(from, to int) {
	c.t.Helper()
	_, leader := c.leader()
	for i := from; i < to; i++ {
		if _, err := put(within(c.t, 10*time.Second), leader, key(i), "v"); err != nil {
			c.t.Fatal(err)
		}
	}
}

// An upgrade of one member after the other: until the last one runs the new build, nothing is written that the old one
// doesn't know, also not in a snapshot from a new member to an old one; then the cluster version rises by itself, and
// nobody can go back.
func TestRollingUpgrade(t *testing.T) { synctest.Test(t, rollingUpgrade) }

func rollingUpgrade(t *testing.T) {
	versions := []uint32{1, 1, 1}
	c := newCluster(t, 3, build(versions))
	c.putMany(0, 10)
	if _, leader := c.leader(); !errors.Is(proposeLater(t, leader), metasrv.ErrClusterVersion) {
		t.Error("a command that nobody knows was not refused")
	}
	for _, i := range []int{0, 1} {
		c.stop(i)
		versions[i] = 2
		c.start(i)
		c.leader()
	}
	// The old member lags behind the log, so a new one sends it a snapshot.
	c.stop(2)
	_, leader := c.leader()
	c.putMany(10, 300)
	eventually(t, "the metasrv leader drops what the image has", func() bool { return leader.Status().FlushedIndex > 250 })
	old := c.start(2)
	eventually(t, "the old member catches up", func() bool { return get(old.View(), key(299)) == "v" })
	if _, err := old.Read(within(t, time.Second), 1); !errors.Is(err, metasrv.ErrCompacted) {
		t.Errorf("the old member did not get a snapshot: %v", err)
	}

	if i, n := c.leader(); i == 2 { // an old leader refuses as well, but this is about a new one
		if err := n.Close(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		old = c.start(2)
	}
	_, leader = c.leader()
	eventually(t, "the new members have published what they know", func() bool { return len(machine.Members(leader.View())) == 3 })
	err := proposeLater(t, leader)
	if !errors.Is(err, metasrv.ErrClusterVersion) || !strings.Contains(err.Error(), "member c ") {
		t.Errorf("a command of version 2 beside a member of version 1: %v, want a refusal that names member c", err)
	}
	if v := leader.Status().ClusterVersion; v != 1 {
		t.Errorf("the cluster version is %d beside a member of version 1", v)
	}

	c.stop(2)
	versions[2] = 2
	c.start(2)
	for _, n := range c.nodes {
		eventually(t, "the cluster version rises", func() bool { return n.Status().ClusterVersion == 2 })
	}
	_, leader = c.leader()
	if err := proposeLater(t, leader); err != nil {
		t.Errorf("after the upgrade: %v", err)
	}
	for _, n := range c.nodes {
		eventually(t, "every member executes it", func() bool { _, ok := n.View().Get("later/x"); return ok })
	}

	c.stop(2)
	versions[2] = 1
	if n, err := Open(c.config(2)); err == nil {
		_ = n.Close(within(t, time.Second))
		t.Error("an old build started on the state of a newer cluster version")
	} else if !strings.Contains(err.Error(), "install the version") || !strings.Contains(err.Error(), "member c") {
		t.Errorf("the old build was refused with: %v", err)
	}
}

// A member of an old build that meets entries of a later version in its log ends, and says what to do.
func TestOldMemberEndsAtLaterEntries(t *testing.T) { synctest.Test(t, oldMemberEndsAtLaterEntries) }

func oldMemberEndsAtLaterEntries(t *testing.T) {
	versions := []uint32{2, 2, 2}
	c := newCluster(t, 3, build(versions))
	for _, n := range c.nodes {
		eventually(t, "the cluster version rises", func() bool { return n.Status().ClusterVersion == 2 })
	}
	at, leader := c.leader()
	behind := (at + 1) % 3
	c.stop(behind)
	if err := proposeLater(t, leader); err != nil {
		t.Fatal(err)
	}
	// As if its image had never seen the later version: the member is empty and gets everything from the leader.
	versions[behind] = 1
	bench := newBench(t)
	bench.machine.Know(1)
	var failure error
	bench.fail = func(err error) { failure = err }
	store := &snapshotStore{fsm: bench.fsm, flusher: bench.flusher, dir: t.TempDir(), checkVersion: (&Node{cfg: c.config(behind)}).checkVersion}
	var stream bytes.Buffer
	if err := leader.Snapshot().Write(&stream); err != nil {
		t.Fatal(err)
	}
	err := store.receive(&stream)
	if tooOld, ok := errors.AsType[*machine.TooOldError](err); !ok || tooOld.Need != 2 || failure == nil {
		t.Errorf("a snapshot of version 2: %v, the member failed with %v", err, failure)
	}
	if err := bench.flusher.close(false); err != nil {
		t.Fatal(err)
	}
	if err := leader.acceptMember(within(t, time.Second), &storagepb.MemberRecord{Id: c.servers[behind].ID, RaftAddr: c.servers[behind].RaftAddr}); err == nil {
		t.Error("the leader took the record of a member that is too old")
	}
}
