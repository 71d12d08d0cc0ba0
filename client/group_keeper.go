package client

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// GroupKeeper knows whether a node is the writer of its group, and until when it may acknowledge writes. It is to the whole
// node what a RegionKeeper is to its regions, and counts time by the same clock. A node asks it twice a write:
//
//	w, err := keeper.BeginWrite()   // metasrv.ErrNotGroupWriter, metasrv.ErrNoLease: nothing may be written
//	… number the write in w.Epoch(), store it here and on the followers …
//	err = w.End(stored)             // only without an error it may be acknowledged
//
// HeartbeatConfig.OnGroup tells the node what was decided. It is read-only until Lead is called.
type GroupKeeper struct {
	// now is the time by the clock of leases, from some beginning.
	now func() time.Duration
	// office is nil on a node that is read-only. It is changed with mu held.
	office atomic.Pointer[office]
	// needed is what InSync returns. It is made anew with mu held whenever something of it has changed.
	needed atomic.Pointer[[]uint64]

	mu   sync.Mutex
	self uint64
	// status is the newest one, nil before the first.
	status *metasrvpb.GroupStatus
	// number counts the requests, over all streams.
	number uint64
	// asked has the in-sync sets that requests asked for, by their numbers, while they have no answer.
	asked map[uint64][]uint64
	// required must store each write whatever metasrv has been told of them.
	required map[uint64]struct{}
}

// office is the time of a writer under one epoch.
type office struct {
	epoch uint64
	// until is when the lease ends by the keeper's clock, in ns; 0 before the first one and once the office is over.
	until atomic.Int64
	// since is the first request that has reported the office, 0 before. The keeper's mu guards it.
	since uint64
}

// NewGroupKeeper returns the keeper of a node that is read-only.
func NewGroupKeeper() *GroupKeeper {
	return &GroupKeeper{now: leaseClock, asked: make(map[uint64][]uint64), required: make(map[uint64]struct{})}
}

// Lead says that the node writes from now on, under an epoch that it has made durable. It acknowledges writes when it has
// reported that, and metasrv has granted a lease. What is decided otherwise by now makes Lead do nothing.
func (k *GroupKeeper) Lead(epoch uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if was := k.office.Load(); was != nil && was.epoch >= epoch || !k.elects(epoch) {
		return
	}
	k.stop()
	k.office.Store(&office{epoch: epoch})
}

// elects says whether the node is the writer under an epoch, as far as it was told. k.mu is held.
func (k *GroupKeeper) elects(epoch uint64) bool {
	return k.status.GetEpoch() == epoch && k.status.GetWriter().GetId() == k.self && !k.status.GetHandingOver()
}

// Stop says that the node writes no more. Writes under way must not be acknowledged. Another Lead under the same epoch is
// allowed.
func (k *GroupKeeper) Stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop()
}

func (k *GroupKeeper) stop() {
	if o := k.office.Load(); o != nil {
		o.until.Store(0)
		k.office.Store(nil)
	}
}

// Require makes End insist on a follower from now on, until Waive. It must be called before the follower is first reported
// as in sync, and before it is found to have all that was acknowledged: else a write that it lacks could be acknowledged in
// between.
func (k *GroupKeeper) Require(node uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.required[node] = struct{}{}
	k.need()
}

// Waive takes back a Require. The follower is insisted on for as long as it is in the in-sync set, or may come into it.
func (k *GroupKeeper) Waive(node uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.required, node)
	k.need()
}

// InSync returns the followers that must store a write at present before it is acknowledged, sorted: those of the committed
// in-sync set, those that metasrv was asked to take into it, and those of Require.
func (k *GroupKeeper) InSync() []uint64 { return slices.Clone(k.insisted()) }

func (k *GroupKeeper) insisted() []uint64 {
	if needed := k.needed.Load(); needed != nil {
		return *needed
	}
	return nil
}

// need makes needed anew. k.mu is held.
func (k *GroupKeeper) need() {
	var nodes []uint64
	for _, m := range k.status.GetMembers() {
		if m.GetInSync() {
			nodes = append(nodes, m.GetPeer().GetId())
		}
	}
	for _, asked := range k.asked {
		nodes = append(nodes, asked...)
	}
	for node := range k.required {
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	nodes = slices.DeleteFunc(slices.Compact(nodes), func(node uint64) bool { return node == k.self })
	k.needed.Store(&nodes)
}

// BeginWrite checks that this node may write. metasrv.ErrNotGroupWriter: another node does, or none.
// metasrv.ErrNoLease: this one does, and has no lease at present.
func (k *GroupKeeper) BeginWrite() (GroupWrite, error) {
	o := k.office.Load()
	if o == nil {
		return GroupWrite{}, metasrv.ErrNotGroupWriter.With("this node is not the writer of its group")
	}
	if !k.holds(o) {
		return GroupWrite{}, metasrv.ErrNoLease.With("this node is the writer of its group in epoch %d, but has no lease of metasrv at present", o.epoch)
	}
	return GroupWrite{keeper: k, office: o}, nil
}

func (k *GroupKeeper) holds(o *office) bool { return int64(k.now()) < o.until.Load() }

// GroupWrite is a write that was begun.
type GroupWrite struct {
	keeper *GroupKeeper
	office *office
}

// Epoch returns the epoch that the write is numbered in.
func (w GroupWrite) Epoch() uint64 { return w.office.epoch }

// End is called when this node and the named followers have stored the write, just before it is acknowledged.
// metasrv.ErrNodeNotInSync: a follower in sync is missing; End may be called again when it has stored the write, or left the
// in-sync set. metasrv.ErrOutcomeUnknown: the epoch or the lease has ended, so another node may write, and this write must
// not be acknowledged; it may survive nevertheless.
func (w GroupWrite) End(stored []uint64) error {
	for _, node := range w.keeper.insisted() {
		if !slices.Contains(stored, node) {
			return metasrv.ErrNodeNotInSync.With("node %d is in sync and has not stored the write", node)
		}
	}
	if w.keeper.holds(w.office) {
		return nil
	}
	return metasrv.ErrOutcomeUnknown.With("the lease of the group's writer in epoch %d ended while the write was under way", w.office.epoch)
}

// groupTicket is a request on its way, as far as the writer's lease goes.
type groupTicket struct {
	number uint64
	sentAt time.Duration
}

// report fills in what a request says of the node's group. It is about to be sent.
func (k *GroupKeeper) report(request *metasrvpb.HeartbeatRequest) groupTicket {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.number++
	k.self = request.GetPeer().GetId()
	said := request.GetGroup()
	said.Epoch, said.Version = k.status.GetEpoch(), k.status.GetVersion()
	o := k.office.Load()
	request.IsLeader = o != nil
	if o != nil {
		said.Epoch = o.epoch
		if o.since == 0 {
			o.since = k.number
		}
		k.asked[k.number] = inSyncOf(request.GetReplicaStats())
		k.need()
	}
	return groupTicket{number: k.number, sentAt: k.now()}
}

func inSyncOf(followers []*metasrvpb.ReplicaStat) []uint64 {
	var nodes []uint64
	for _, f := range followers {
		if f.GetInSync() && !f.GetIsLearner() {
			nodes = append(nodes, f.GetPeer().GetId())
		}
	}
	return nodes
}

// answered takes in what a response to a request says of the group, and returns whether that is news. What the request asked
// for, and those before it, has its outcome.
func (k *GroupKeeper) answered(t groupTicket, status *metasrvpb.GroupStatus) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for number := range k.asked {
		if number <= t.number {
			delete(k.asked, number)
		}
	}
	known := k.status
	if known == nil || known.GetVersion() < status.GetVersion() {
		k.status, news = proto.CloneOf(status), true
		k.status.LeaseMs = 0
	}
	k.need()
	o := k.office.Load()
	if o == nil {
		return news
	}
	if !k.elects(o.epoch) {
		k.stop()
		return news
	}
	if status.GetEpoch() == o.epoch && status.GetLeaseMs() > 0 && o.since != 0 && o.since <= t.number {
		lease := upToAnHour(status.GetLeaseMs())
		if until := int64(t.sentAt + lease); until > o.until.Load() {
			o.until.Store(until)
		}
	}
	return news
}

// present returns the newest status, nil before the first.
func (k *GroupKeeper) present() *metasrvpb.GroupStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.status == nil {
		return nil
	}
	return proto.CloneOf(k.status)
}
