package raftfsm

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raft waits longer after each failed message to a member before it sends the next entries, up to ten seconds, and never
// asks whether the member is back. Heartbeats go on all the while. So after a failure the next message with entries
// waits here for an answer to a heartbeat, instead of failing again: raft counts one failure, and the member is fed the
// moment it is back.

// reachCheck is how often a message that waits looks whether it is still of use.
const reachCheck = 500 * time.Millisecond

// reach knows which members don't answer.
type reach struct {
	mu   sync.Mutex
	away map[raft.ServerID]chan struct{} // closed when the member answers
	// wanted reports whether entries of a term are still for a member.
	wanted func(id raft.ServerID, term uint64) bool
	closed chan struct{}
	once   sync.Once
}

func newReach() *reach {
	return &reach{away: make(map[raft.ServerID]chan struct{}), closed: make(chan struct{}),
		wanted: func(raft.ServerID, uint64) bool { return false }}
}

func (r *reach) setWanted(wanted func(id raft.ServerID, term uint64) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = wanted
}

// isWanted reports whether what is sent in a term is still for a member.
func (r *reach) isWanted(id raft.ServerID, term uint64) bool {
	r.mu.Lock()
	wanted := r.wanted
	r.mu.Unlock()
	return wanted(id, term)
}

// note takes the outcome of a message.
func (r *reach) note(id raft.ServerID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	back, away := r.away[id]
	switch {
	case err == nil && away:
		close(back)
		delete(r.away, id)
	case err != nil && !away:
		r.away[id] = make(chan struct{})
	}
}

// await returns when a member is thought to answer, or entries of the term are not for it any more.
func (r *reach) await(id raft.ServerID, term uint64) {
	r.mu.Lock()
	back, away := r.away[id]
	wanted := r.wanted
	r.mu.Unlock()
	if !away {
		return
	}
	ticker := time.NewTicker(reachCheck)
	defer ticker.Stop()
	for wanted(id, term) {
		select {
		case <-back:
			return
		case <-r.closed:
			return
		case <-ticker.C:
		}
	}
}

func (r *reach) close() { r.once.Do(func() { close(r.closed) }) }

// feeds reports whether this member is the leader of a term, and another one belongs to the cluster.
func (n *Node) feeds(id raft.ServerID, term uint64) bool {
	if n.raft.State() != raft.Leader || n.raft.CurrentTerm() != term {
		return false
	}
	return slices.ContainsFunc(n.configuration().Servers, func(s raft.Server) bool { return s.ID == id })
}

// isHeartbeat reports whether a message only says who leads.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return len(req.Entries) == 0 && req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && req.LeaderCommitIndex == 0
}
