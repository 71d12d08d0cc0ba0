package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func offline(id, dir string) Offline {
	return Offline{MemberID: id, RaftAddr: id + ":3003", DataDir: dir, Appliers: []state.Applier{kv.NewApplier()}}
}

// Rule 14: a restored cluster has everything of the snapshot, goes on far beyond what the lost state can have given out,
// lives another life, and is in quarantine until somebody confirms it. Others join it.
func TestRestoreBeginsAnotherLife(t *testing.T) {
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		t.Run(string(kind), func(t *testing.T) { testRestore(t, kind) })
	}
}

// keepsLogIn has the members of a cluster keep their logs in a store.
func keepsLogIn(kind LogStore) func(*cluster) {
	return func(c *cluster) { c.configure = func(_ int, cfg *Config) { cfg.LogStore = kind } }
}

func testRestore(t *testing.T, kind LogStore) {
	c := newCluster(t, 1, keepsLogIn(kind))
	_, old := c.leader()
	ctx := within(t, time.Minute)
	for i := range 100 {
		if _, err := put(ctx, old, key(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	session, err := old.Propose(ctx, state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, Payload: &storagepb.OpenSession{}})
	if err != nil {
		t.Fatal(err)
	}
	opened := &storagepb.OpenSessionResult{}
	if err := session.Decode(opened); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := old.Snapshot().Write(&file); err != nil {
		t.Fatal(err)
	}
	identity, revision := old.identity(), old.View().Revision()

	damaged := bytes.Clone(file.Bytes())
	damaged[len(damaged)/2] ^= 1
	dir := filepath.Join(t.TempDir(), "restored")
	if _, err := offline("r1", dir).Restore(bytes.NewReader(damaged), "test"); !errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("restored from a damaged file: %v", err)
	}
	if left, _ := filepath.Glob(dir + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	o := offline("r1", dir)
	o.LogStore = kind
	found, err := o.Restore(bytes.NewReader(file.Bytes()), "restored from a test")
	if err != nil || found.Revision != revision || found.ClusterID != identity.cluster || found.LogStore != kind {
		t.Fatalf("restored %+v, %v", found, err)
	}
	if _, err := offline("r1", dir).Restore(bytes.NewReader(file.Bytes()), "test"); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("restored over a folder: %v", err)
	}

	r := &cluster{t: t, dir: filepath.Dir(dir), timing: DefaultTiming(), servers: []Server{{ID: "r1", RaftAddr: "r1:3003"}}, nodes: make([]*Node, 1)}
	keepsLogIn(kind)(r)
	t.Cleanup(func() {
		for i := range r.nodes {
			r.stop(i)
		}
	})
	if err := os.Rename(dir, r.folder(0)); err != nil {
		t.Fatal(err)
	}
	n := r.start(0)
	r.leader()
	view, err := n.Barrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if get(view, key(i)) != "v" {
			t.Fatalf("%s is lost", key(i))
		}
	}
	now := n.identity()
	if now.cluster != identity.cluster || now.incarnation == identity.incarnation || machine.Cluster(view).GetGeneration() != 1 {
		t.Errorf("it is %+v, was %+v", now, identity)
	}
	if view.Revision() < revision+1<<39 {
		t.Errorf("revision %d after %d", view.Revision(), revision)
	}
	if machine.Quarantined(view).GetOrigin() != "restored from a test" {
		t.Errorf("quarantine: %v", machine.Quarantined(view))
	}
	again, err := n.Propose(ctx, state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, Payload: &storagepb.OpenSession{}})
	if err != nil {
		t.Fatal(err)
	}
	next := &storagepb.OpenSessionResult{}
	if err := again.Decode(next); err != nil || next.Session < opened.Session+1<<39 {
		t.Errorf("session %d after %d, %v", next.Session, opened.Session, err)
	}
	if err := old.admit(n.greet()); err == nil {
		t.Error("a member of the old life lets one of the new one speak raft to it")
	}

	at := r.join("a") // an id of the old life is free
	if _, err := n.AddMember(ctx, r.servers[at], Change{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the member that joins has it all", func() bool { return get(r.nodes[at].View(), key(99)) == "v" })
	end := &storagepb.EndQuarantine{ClusterId: now.cluster, Incarnation: now.incarnation}
	if _, err := n.Propose(ctx, state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_END_QUARANTINE, Payload: end}); err != nil {
		t.Fatal(err)
	}
	if machine.Quarantined(n.View()) != nil {
		t.Error("it is in quarantine after it was confirmed")
	}
	c.stop(0)
}

// Rule 14: what the last member of a lost majority has, its log included, goes on in another life; members of before that
// come back end.
func TestRecoveryFromALostMajority(t *testing.T) {
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		t.Run(string(kind), func(t *testing.T) { testRecovery(t, kind) })
	}
}

// abandon leaves what a recovery leaves that is killed while it makes the new files.
func abandon(t *testing.T, dir string) {
	t.Helper()
	making := filepath.Join(dir, "recovering.part")
	if err := errors.Join(os.Mkdir(making, 0o700), os.WriteFile(filepath.Join(making, "state.db"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A recovery that was killed while it moved files leaves those of two lives, or none: neither a member nor another
// recovery takes the folder.
func TestHalfRecoveredFolderIsRefused(t *testing.T) {
	c := newCluster(t, 1)
	c.leader()
	c.stop(0)
	o := offline(c.servers[0].ID, c.folder(0))
	o.Network = c.net.Host(o.RaftAddr)
	interrupted := filepath.Join(o.DataDir, "recovering")
	if err := errors.Join(os.Mkdir(interrupted, 0o700), os.Remove(filepath.Join(o.DataDir, "state.db"))); err != nil {
		t.Fatal(err)
	}
	const want = "a recovery was interrupted"
	if n, err := Open(c.config(0)); err == nil {
		t.Errorf("a member opened it: %v", n.Close(t.Context()))
	} else if !strings.Contains(err.Error(), want) {
		t.Errorf("a member says %v", err)
	}
	if _, _, err := o.Recover("test", func(Found) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("another recovery: %v", err)
	}
}

func testRecovery(t *testing.T, kind LogStore) {
	c := newCluster(t, 3, keepsLogIn(kind))
	at, leader := c.leader()
	ctx := within(t, time.Minute)
	for i := range 50 {
		if _, err := put(ctx, leader, key(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	survivor := (at + 1) % 3
	eventually(t, "the survivor has it all", func() bool { return get(c.nodes[survivor].View(), key(49)) == "v" })
	revision := c.nodes[survivor].View().Revision()
	for i := range 3 {
		if i == survivor { // as kill -9 does: what is in the log is not in the image
			copyOf := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(copyOf, os.DirFS(c.folder(i))); err != nil {
				t.Fatal(err)
			}
			c.stop(i)
			if err := os.RemoveAll(c.folder(i)); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(copyOf, c.folder(i)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		c.stop(i)
	}
	o := offline(c.servers[survivor].ID, c.folder(survivor))
	o.Network = c.net.Host(o.RaftAddr)
	refused := errors.New("refused")
	if _, _, err := o.Recover("test", func(Found) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("recovered without a confirmation: %v", err)
	}
	abandon(t, o.DataDir)
	found, kept, err := o.Recover("test", func(f Found) error {
		if len(f.Members) != 3 || f.Revision != revision || f.LastAt.IsZero() || f.LogStore != kind {
			t.Errorf("asked to confirm %+v, want revision %d and a log of %s", f, revision, kind)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	file := map[LogStore]string{LogStoreBolt: "raft.db", LogStoreWAL: "wal"}[kind]
	if _, err := os.Stat(filepath.Join(kept, file)); err != nil {
		t.Errorf("the files of before: %v", err)
	}
	n := c.start(survivor)
	eventually(t, "it leads alone", func() bool { _, leads := n.Leadership(); return leads })
	view, err := n.Barrier(ctx)
	if err != nil || get(view, key(0)) != "v" || get(view, key(49)) != "v" || machine.Quarantined(view) == nil {
		t.Errorf("%v: %s, %s, %v", err, get(view, key(0)), get(view, key(49)), machine.Quarantined(view))
	}
	if view.Revision() < found.Revision+1<<39 {
		t.Errorf("revision %d after %d", view.Revision(), found.Revision)
	}
	// The lost ones come back: they would be a majority of the old life.
	for i := range 3 {
		if i == survivor {
			continue
		}
		back, err := Open(c.config(i))
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = back
	}
	for i := range 3 {
		if i != survivor {
			eventually(t, "a member of the old life ends", func() bool { return c.nodes[i].Err() != nil })
			if !strings.Contains(c.nodes[i].Err().Error(), "restored or recovered") {
				t.Errorf("it ended with %v", c.nodes[i].Err())
			}
			_ = c.nodes[i].Close(context.Background())
			c.nodes[i] = nil
		}
	}
	if err := n.Err(); err != nil {
		t.Error(err)
	}
}

// What a majority still has must not be ended by a recovery or a restore of one member of it: those who hear of a later
// life end for ever.
func TestLivingMajorityIsNotGivenUp(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	ctx := within(t, time.Minute)
	if _, err := put(ctx, leader, key(0), "v"); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := leader.Snapshot().Write(&file); err != nil {
		t.Fatal(err)
	}
	down, other := (at+1)%3, (at+2)%3
	c.stop(down)
	o := offline(c.servers[down].ID, c.folder(down))
	o.RaftAddr, o.Network = c.servers[down].RaftAddr, c.net.Host(c.servers[down].RaftAddr)
	recovery := func() error {
		_, _, err := o.Recover("test", func(Found) error { return errors.New("asked") })
		return err
	}
	restore := func(addr string) error {
		r := o
		r.DataDir, r.RaftAddr = filepath.Join(t.TempDir(), "restored"), addr
		_, err := r.Restore(bytes.NewReader(file.Bytes()), "test")
		return err
	}
	refused := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	refused("recovery beside a majority", recovery(), "is not lost")
	refused("restore at the address of a member, beside a majority", restore(o.RaftAddr), "is not lost")
	if err := restore("elsewhere:3003"); err != nil {
		t.Errorf("restore at an address that no member knows: %v", err)
	}
	c.stop(other)
	refused("recovery where this member makes up the majority", recovery(), "Start member "+o.MemberID)
	if err := restore(o.RaftAddr); err != nil {
		t.Errorf("restore beside a minority: %v", err)
	}
	c.stop(at)
	refused("recovery where nobody else runs", recovery(), "asked")

	first := offline(c.servers[at].ID, c.folder(at))
	first.RaftAddr, first.Network = c.servers[at].RaftAddr, c.net.Host(c.servers[at].RaftAddr)
	if _, _, err := first.Recover("test", func(Found) error { return nil }); err != nil {
		t.Fatal(err)
	}
	n := c.start(at)
	eventually(t, "it leads alone", func() bool { _, leads := n.Leadership(); return leads })
	refused("a second recovery", recovery(), "restored or recovered already")
}
