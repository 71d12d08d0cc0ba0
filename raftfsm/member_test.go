package raftfsm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// What another member says of itself must not stop this version, nor come from a stranger.
func TestPublishTakesOnlyWhatItKnows(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	other := c.servers[(at+1)%3]
	publish := func(member *storagepb.MemberRecord) *peerpb.Response {
		return leader.answerPeer(within(t, 10*time.Second), &peerpb.Request{
			Request: &peerpb.Request_Publish{Publish: &peerpb.PublishRequest{Member: member}},
		})
	}
	newer := &storagepb.MemberRecord{Id: other.ID, RaftAddr: other.RaftAddr, GrpcAddr: "new:1"}
	newer.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1))
	if r := publish(newer); r.Error != "" {
		t.Errorf("the record of a newer version was refused: %s", r.Error)
	}
	for _, stranger := range []*storagepb.MemberRecord{
		nil, {Id: "x", RaftAddr: other.RaftAddr}, {Id: other.ID, RaftAddr: "elsewhere:1"},
	} {
		if r := publish(stranger); r.Error == "" {
			t.Errorf("a stranger was taken in: %v", stranger)
		}
	}
	for _, n := range c.nodes {
		if n.Err() != nil {
			t.Error(n.Err())
		}
	}
	if record, _ := leader.publishedMember(other.ID); record.GetGrpcAddr() != "new:1" {
		t.Errorf("the record is %v", record)
	}
}

// Rule 1: a member that lost its data doesn't vote again under its old id.
func TestMemberWithoutItsDataIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	at, _ := c.leader()
	lost := (at + 1) % 3
	for _, n := range c.nodes {
		eventually(t, "every member knows every other", func() bool {
			for _, s := range c.servers {
				if _, ok := n.publishedMember(s.ID); !ok {
					return false
				}
			}
			return true
		})
	}
	c.stop(lost)
	if err := os.RemoveAll(c.folder(lost)); err != nil {
		t.Fatal(err)
	}
	if n, err := Open(c.config(lost)); err == nil || !strings.Contains(err.Error(), "its data is lost") {
		t.Errorf("a member without its data was started: %v", err)
		if n != nil {
			_ = n.Close(context.Background())
		}
	}
}

// A member whose executed entries are overruled belongs to another history: it ends instead of going on with a state of
// its own.
func TestOverruledMemberFails(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	behind, lost := (at+1)%3, (at+2)%3
	old := t.TempDir()
	c.stop(lost)
	if err := os.CopyFS(old, os.DirFS(c.folder(lost))); err != nil {
		t.Fatal(err)
	}
	c.start(lost)
	c.stop(behind)
	for i := range 20 {
		if _, err := put(within(t, time.Minute), leader, key(i), "acknowledged"); err != nil {
			t.Fatal(err)
		}
	}
	c.stop(at)
	c.stop(lost)
	// Somebody puts back an old copy of a folder; with the one that is behind it forms a majority that never had the
	// entries.
	if err := os.RemoveAll(c.folder(lost)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(c.folder(lost), os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	c.start(lost)
	c.start(behind)
	_, wrong := c.leader()
	for i := range 40 {
		if _, err := put(within(t, time.Minute), wrong, key(1000+i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	right := c.start(at)
	eventually(t, "the member with the acknowledged entries refuses the others' log", func() bool { return right.Err() != nil })
	if got := get(right.View(), key(19)); got != "acknowledged" {
		t.Errorf("its state has %s", got)
	}
}

// A member that is reached at another address than the cluster knows says so.
func TestChangedAddressIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	c.leader()
	c.stop(0)
	cfg := c.config(0)
	cfg.RaftAddr, cfg.Member.RaftAddr = "elsewhere:1", "elsewhere:1"
	cfg.Network = c.net.Host("elsewhere:1")
	cfg.InitialCluster = nil
	cfg.InitialClusterState = ClusterExisting
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "knows member a at a:3003") {
		t.Errorf("started under another address: %v", err)
	}
}

// Members tell when their state is that of the cluster.
func TestMembersCatchUp(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	if _, err := put(within(t, time.Minute), leader, "x", "1"); err != nil {
		t.Fatal(err)
	}
	other := (at + 1) % 3
	c.stop(other)
	n := c.start(other)
	eventually(t, "the restarted member has caught up", func() bool { return n.Status().CaughtUp })
	if got := get(n.View(), "x"); got != "1" {
		t.Errorf("it has caught up, but has x=%s", got)
	}
}

// Rule 1: a member that has its state but not its log has lost its vote too, and may not vote again.
func TestStateWithoutItsLogIsRefused(t *testing.T) {
	c := newCluster(t, 1)
	_, n := c.leader()
	if _, err := put(within(t, time.Minute), n, "x", "1"); err != nil {
		t.Fatal(err)
	}
	c.stop(0)
	if err := os.Remove(filepath.Join(c.folder(0), "raft.db")); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"its log is gone", "but no log"} {
		if n, err := Open(c.config(0)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("a member without its log was started: %v", err)
			if n != nil {
				_ = n.Close(context.Background())
			}
		}
		// The next round is that of a member that was taken in, and founded nothing.
		if err := os.RemoveAll(filepath.Join(c.folder(0), memberFileName)); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(c.folder(0), "raft.db")); err != nil {
			t.Fatal(err)
		}
	}
}

// A member of another cluster at the address of one of this one, or another one of this, proves nothing and has no hashes.
func TestStrangerAtAnAddressIsNotHeard(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	b, third := (at+1)%3, (at+2)%3
	eventually(t, "the other members answer", func() bool {
		return len(leader.askHashes(t.Context(), leader.configuration().Servers)) == 2
	})
	others, need := othersToAsk(leader.voters(), leader.cfg.MemberID)
	term := leader.raft.CurrentTerm()
	c.stop(b)
	c.stop(third)
	cfg := c.config(b)
	cfg.DataDir, cfg.InitialCluster = t.TempDir(), []Server{c.servers[b]}
	stranger, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[b] = stranger
	eventually(t, "the other cluster has a leader", func() bool { _, leads := stranger.Leadership(); return leads })
	term = max(term, stranger.raft.CurrentTerm()) // it would be taken for a confirmation
	if err := leader.fullProof(within(t, 10*time.Second), others, need, term); err == nil {
		t.Error("a member of another cluster has confirmed the leadership")
	}
	if reports := leader.askHashes(t.Context(), leader.configuration().Servers); len(reports) != 0 {
		t.Errorf("a member of another cluster was compared with: %v", reports)
	}
	_, err = leader.peers.ask(t.Context(), cfg.RaftAddr, leader.barrierRequest(cfg.MemberID))
	if err == nil || !strings.Contains(err.Error(), "of cluster") {
		t.Errorf("a member of another cluster was asked for a barrier: %v", err)
	}
	_, err = stranger.peers.ask(t.Context(), cfg.RaftAddr, stranger.barrierRequest("x"))
	if err == nil || !strings.Contains(err.Error(), "this is member") {
		t.Errorf("another member than the one that was asked answers: %v", err)
	}
}
