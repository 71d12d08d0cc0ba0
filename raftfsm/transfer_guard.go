package raftfsm

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transferSlack is what an exchange with the target of a transfer may take beyond the election timeouts.
const transferSlack = time.Second

// transferGuard ends a metasrv leader that raft keeps from writing for a transfer of its leadership that never ends: an
// interrupted one stays marked as under way, even in a later term (hashicorp/raft#696, not fixed in v1.7.3). A transfer
// takes two election timeouts at most.
type transferGuard struct {
	election time.Duration
	fail     func(error)

	mu    sync.Mutex
	since time.Time
}

// note takes what raft has answered to an entry.
func (g *transferGuard) note(err error, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !errors.Is(err, raft.ErrLeadershipTransferInProgress):
		g.since = time.Time{}
	case g.since.IsZero():
		g.since = now
	case now.Sub(g.since) > 2*g.election+transferSlack:
		g.fail(fmt.Errorf("raft has refused all writes for %s because of a transfer of the leadership, which does not end: "+
			"this member ends, so that another one leads; start it again", now.Sub(g.since).Round(time.Millisecond)))
	}
}
