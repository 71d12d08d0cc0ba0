package raftfsm

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// repeatEvery is the least time between two warnings or errors of raft that say the same of the same member: it retries
// several times a second what fails for as long as a member is away.
const repeatEvery = 10 * time.Second

// repeats knows what was said lately.
type repeats struct {
	mu   sync.Mutex
	told map[string]time.Time
}

// again reports whether a line with this message about this member was written lately.
func (r *repeats) again(msg string, args []any, now time.Time) bool {
	about := msg
	for _, arg := range args {
		switch v := arg.(type) {
		case raft.Server:
			about += " " + string(v.ID)
		case raft.ServerID, raft.ServerAddress:
			about += fmt.Sprint(" ", v)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, told := r.told[about]; told && now.Sub(last) < repeatEvery {
		return true
	}
	for key, last := range r.told {
		if now.Sub(last) >= repeatEvery {
			delete(r.told, key)
		}
	}
	r.told[about] = now
	return false
}
