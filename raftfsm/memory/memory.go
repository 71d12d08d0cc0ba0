// Package memory is the replicated state machine as one node in memory, without a log: for tests of the
// packages whose commands it runs. It runs the same machine as package raftfsm does.
package memory

import (
	"context"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const feedBytes = 32 << 20

// ClusterID is the id of the cluster that every node is of.
const ClusterID = 77

// Node is a single node whose state lives as long as it does. It is its own metasrv leader, in term 1 unless
// SetTerm says otherwise.
type Node struct {
	mu      sync.Mutex
	machine *machine.Machine
	feed    *machine.Feed
	view    *machine.View
	term    uint64
	now     state.LeaderTime
}

// New returns a node that runs the appliers on an empty state of the latest cluster version.
func New(appliers ...state.Applier) *Node { return NewAt(machine.EntryVersion, appliers...) }

// NewAt returns what New does, in a cluster of an earlier version. It panics if this build doesn't know the version.
func NewAt(version uint32, appliers ...state.Applier) *Node {
	m := machine.New(appliers...)
	entry := &storagepb.Entry{Version: machine.FirstVersion, Commands: []*storagepb.Command{{
		Kind: storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED,
		Payload: state.Encode(&storagepb.LeaderEstablished{
			Term: 1, Member: &storagepb.MemberRecord{Id: "memory", CommandVersion: version}, ProposedClusterId: ClusterID,
		}),
	}}}
	if version > machine.FirstVersion {
		entry.Commands = append(entry.Commands, &storagepb.Command{
			Kind:    storagepb.CommandKind_COMMAND_KIND_SET_CLUSTER_VERSION,
			Payload: state.Encode(&storagepb.SetClusterVersion{From: machine.FirstVersion, Version: version}),
		})
	}
	if _, err := m.Apply(1, 1, state.Encode(entry)); err != nil {
		panic(err)
	}
	return &Node{machine: m, feed: machine.NewFeed(0, feedBytes), view: m.View(), term: 1}
}

// Advance moves leader time forward.
func (n *Node) Advance(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now += state.LeaderTime(d.Milliseconds())
}

// SetTerm changes the term of the entries that follow.
func (n *Node) SetTerm(term uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.term = term
}

// Now returns the leader time.
func (n *Node) Now() state.LeaderTime {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

// Propose executes a command.
func (n *Node) Propose(ctx context.Context, p state.Proposal) (state.Result, error) {
	if err := ctx.Err(); err != nil {
		return state.Result{}, err
	}
	if err := state.Known(p.Payload); err != nil {
		return state.Result{}, metasrv.ErrInvalidArgument.With("%s: %v", p.Kind, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if needs, present := n.machine.Needs(p.Kind, p.Payload), n.view.Position().Version; needs > present {
		return state.Result{}, metasrv.ErrClusterVersion.With("%s needs cluster version %d, the cluster is at %d", p.Kind, needs, present)
	}
	entry := state.Encode(&storagepb.Entry{
		Version:      n.view.Position().Version,
		LeaderTimeMs: uint64(n.now),
		Commands: []*storagepb.Command{{
			Kind: p.Kind, Payload: state.Encode(p.Payload), Id: p.ID, PlannedTerm: p.PlannedTerm,
		}},
	})
	out, err := n.machine.Apply(n.view.Position().Index+1, n.term, entry)
	if err != nil {
		return state.Result{}, err
	}
	n.view = n.machine.View()
	n.feed.Publish(out.Revisions)
	return machine.ResultOf(out.Encoded()[0])
}

// View returns the present state.
func (n *Node) View() state.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view
}

// Barrier returns the present state.
func (n *Node) Barrier(ctx context.Context) (state.View, error) { return n.View(), ctx.Err() }

// Read returns the revisions from one on, as state.Feed.
func (n *Node) Read(ctx context.Context, from uint64) ([]state.Revision, error) {
	return n.feed.Read(ctx, from)
}

// Remembered returns what the feed holds, as state.Feed.
func (n *Node) Remembered() (oldest uint64, bytes int) { return n.feed.Remembered() }
