package client

import (
	"slices"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// groupKeeperAt is the keeper of node 1, whose clock the test moves.
type groupKeeperAt struct {
	*GroupKeeper
	clock time.Duration
}

func newGroupKeeperAt() *groupKeeperAt {
	k := &groupKeeperAt{GroupKeeper: NewGroupKeeper(), clock: time.Hour}
	k.now = func() time.Duration { return k.clock }
	return k
}

// ask sends a beat that reports followers as in sync.
func (k *groupKeeperAt) ask(inSync ...uint64) (groupTicket, *metasrvpb.HeartbeatRequest) {
	request := &metasrvpb.HeartbeatRequest{Peer: &metasrvpb.Peer{Id: 1}, Group: &metasrvpb.GroupReport{}}
	for _, id := range inSync {
		request.ReplicaStats = append(request.ReplicaStats, &metasrvpb.ReplicaStat{Peer: &metasrvpb.Peer{Id: id}, InSync: true})
	}
	return k.report(request), request
}

// writtenBy is the status of a group with nodes 1, 2 and 3, of which some are in sync.
func writtenBy(writer, epoch, version uint64, granted time.Duration, inSync ...uint64) *metasrvpb.GroupStatus {
	status := &metasrvpb.GroupStatus{
		Name: "g", Epoch: epoch, Version: version, Writer: &metasrvpb.Peer{Id: writer}, LeaseMs: uint64(granted.Milliseconds()),
	}
	for id := uint64(1); id <= 3; id++ {
		status.Members = append(status.Members, &metasrvpb.GroupMember{Peer: &metasrvpb.Peer{Id: id}, InSync: id == writer || slices.Contains(inSync, id)})
	}
	return status
}

// writing is the keeper of a writer in epoch 1, version 4, with a lease that began at the moment and node 2 in sync.
func writing(t *testing.T) *groupKeeperAt {
	t.Helper()
	k := newGroupKeeperAt()
	first, _ := k.ask()
	k.answered(first, writtenBy(1, 1, 4, 0, 2))
	k.Lead(1)
	beat, request := k.ask(2)
	if !request.IsLeader || request.GetGroup().GetEpoch() != 1 || request.GetGroup().GetVersion() != 4 {
		t.Fatalf("reported %v", request)
	}
	k.answered(beat, writtenBy(1, 1, 4, lease, 2))
	k.want(t, nil, 2)
	return k
}

// want begins and ends a write that some followers stored.
func (k *groupKeeperAt) want(t *testing.T, want error, stored ...uint64) {
	t.Helper()
	w, err := k.BeginWrite()
	if err == nil {
		err = w.End(stored)
	}
	if want != nil {
		wantIs(t, err, want)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestGroupKeeperLease(t *testing.T) {
	k := newGroupKeeperAt()
	k.want(t, metasrv.ErrNotGroupWriter)
	k.Lead(1) // nobody said so
	k.want(t, metasrv.ErrNotGroupWriter)
	k = writing(t)
	k.clock += lease - 1
	k.want(t, nil, 2)
	w, err := k.BeginWrite()
	if err != nil || w.Epoch() != 1 {
		t.Fatal(w.Epoch(), err)
	}
	// Rule 16: the process is suspended between the check before a write and its acknowledgement.
	k.clock++
	wantIs(t, w.End([]uint64{2}), metasrv.ErrOutcomeUnknown)
	k.want(t, metasrv.ErrNoLease)
}

// Rule 18: the lease counts from when the request was sent, and covers only an office that it reported.
func TestGroupKeeperGrantCoversWhatWasReported(t *testing.T) {
	k := newGroupKeeperAt()
	early, _ := k.ask()
	k.answered(early, writtenBy(1, 1, 4, 0))
	k.Lead(1)
	k.answered(early, writtenBy(1, 1, 4, lease))
	k.want(t, metasrv.ErrNoLease)
	beat, _ := k.ask()
	k.clock += lease - 1
	k.answered(beat, writtenBy(1, 1, 4, lease))
	k.want(t, nil)
	k.clock++
	k.want(t, metasrv.ErrNoLease)

	// One of an earlier epoch gives nothing to a later one.
	k.answered(beat, writtenBy(2, 2, 5, 0))
	k.answered(beat, writtenBy(1, 3, 6, 0))
	k.Lead(3)
	k.clock -= lease / 2
	k.answered(beat, writtenBy(1, 3, 6, lease))
	k.want(t, metasrv.ErrNoLease)
}

func TestGroupKeeperStops(t *testing.T) {
	for name, status := range map[string]*metasrvpb.GroupStatus{
		"another writer": writtenBy(2, 2, 5, 0),
		"another epoch":  writtenBy(1, 2, 5, lease),
		"handing over":   {Name: "g", Epoch: 1, Version: 5, Writer: &metasrvpb.Peer{Id: 1}, HandingOver: true, LeaseMs: 3000},
	} {
		t.Run(name, func(t *testing.T) {
			k := writing(t)
			w, err := k.BeginWrite()
			if err != nil {
				t.Fatal(err)
			}
			beat, _ := k.ask(2)
			if !k.answered(beat, status) {
				t.Error("that is news")
			}
			wantIs(t, w.End([]uint64{2}), metasrv.ErrOutcomeUnknown)
			k.want(t, metasrv.ErrNotGroupWriter)
			k.Lead(1) // the callback of an earlier status
			k.want(t, metasrv.ErrNotGroupWriter)
			if _, request := k.ask(2); request.IsLeader || request.GetGroup().GetVersion() != 5 {
				t.Errorf("reports %v", request)
			}
			// A late answer to an earlier beat brings nothing back.
			k.answered(beat, writtenBy(1, 1, 4, lease, 2))
			k.want(t, metasrv.ErrNotGroupWriter)
		})
	}
	k := writing(t)
	k.Stop()
	k.want(t, metasrv.ErrNotGroupWriter)
}

// Rule 19: from asking for a growth until its outcome is known, and until a shrink is, the follower's word is needed.
func TestGroupKeeperInSyncSet(t *testing.T) {
	k := writing(t)
	need := func(nodes ...uint64) {
		t.Helper()
		if got := k.InSync(); !slices.Equal(got, nodes) {
			t.Fatalf("%v must store a write, want %v", got, nodes)
		}
		k.want(t, metasrv.ErrNodeNotInSync)
		k.want(t, nil, nodes...)
	}
	need(2)
	k.Require(3)
	need(2, 3)
	grow, _ := k.ask(2, 3)
	k.Waive(3)
	need(2, 3)
	shrink, _ := k.ask(2)
	k.answered(grow, writtenBy(1, 1, 5, lease, 2, 3))
	need(2, 3)
	k.answered(shrink, writtenBy(1, 1, 5, lease, 2, 3)) // not carried out: it rested on version 4
	need(2, 3)
	again, _ := k.ask(2)
	need(2, 3)
	k.answered(again, writtenBy(1, 1, 6, lease, 2))
	need(2)
	// A request without an answer may still have been asked for, whatever comes later on the same or another stream.
	lost, _ := k.ask(2, 3)
	need(2, 3)
	k.answered(again, writtenBy(1, 1, 6, lease, 2))
	need(2, 3)
	k.answered(lost, writtenBy(1, 1, 6, lease, 2))
	need(2)
}
