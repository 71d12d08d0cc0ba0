package server

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/config"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// stormMemory is how long a node that failed counts for the storm limit after its regions were given to others.
const stormMemory = time.Minute

// The kinds of halts.
const (
	haltMaintenance = "maintenance"
	haltStorm       = "storm"
	haltQuarantine  = "quarantine"
)

// halt is why no region is given to another node. The zero halt is none.
type halt struct {
	// kind is for metrics, empty where there is none.
	kind string
	// reason is for people.
	reason string
}

// failoverLook is what a look at failed nodes found.
type failoverLook struct {
	halt   halt
	failed []metasrv.NodeID
	// leaderless counts the regions whose leader can't serve them, by why nobody else does.
	leaderless map[string]int
}

// halted returns why nothing is given to other nodes in a state, by what people have decided: nobody has confirmed it, or
// there is maintenance.
func halted(view state.View) (halt, *storagepb.ClusterConfig, error) {
	c, err := config.Of(view)
	if err != nil {
		return halt{}, nil, err
	}
	if q := quarantined(view); q != nil {
		return halt{haltQuarantine, fmt.Sprintf("the state was %s and is not confirmed, so it may name replicas in sync that lack rows; "+
			"see: metactl quarantine show", q.GetOrigin())}, c, nil
	}
	if m := c.GetMaintenance(); m != nil {
		return halt{haltMaintenance, fmt.Sprintf("maintenance mode is on since %s (%s); end it with: metactl maintenance off",
			time.UnixMilli(m.GetSinceMs()).UTC().Format(time.DateTime+" UTC"), m.GetReason())}, c, nil
	}
	return halt{}, c, nil
}

// storm returns a halt while so many datanodes that keep leases are silent that something between them and metasrv is
// likelier to have failed than they. Nodes that were silent for long and lead nothing count for nothing: they are gone.
func storm(
	t *heartbeat.Tracker, statuses []heartbeat.NodeStatus, leads func(metasrv.NodeID) bool, maxPercent uint32, now time.Time,
) halt {
	silent, all := 0, 0
	for _, s := range statuses {
		if !s.Record.GetInfo().GetKeepsLeases() || s.Role != metasrvpb.NodeRole_NODE_ROLE_DATANODE {
			continue
		}
		silence := t.Silence(s, now)
		doubtful := silence >= t.Config().Doubtful()
		if doubtful && !leads(s.ID) && (!s.Heard || silence > stormMemory) {
			continue
		}
		all++
		if doubtful {
			silent++
		}
	}
	if silent < 2 || silent*100 <= all*int(maxPercent) {
		return halt{}
	}
	return halt{haltStorm, fmt.Sprintf("%d of %d datanodes are silent, which is more than %d %%: more likely the network or metasrv is at fault; "+
		"bring them back, or, if they are lost, raise the limit with: metactl config set max-failed-percent", silent, all, maxPercent)}
}

// settle decides whether regions may be given to other nodes now, and says so where that has changed.
func (f *failover) settle(view state.View, statuses []heartbeat.NodeStatus, now time.Time) (halt, error) {
	p, c, err := halted(view)
	if err != nil {
		return halt{}, err
	}
	if p.kind == "" {
		p = storm(f.term.tracker, statuses, f.led.leads, c.GetMaxFailedPercent(), now)
	}
	if p.kind != f.halt.kind {
		switch p.kind {
		case "":
			f.log.Info("regions of failed datanodes are given to others again", "was", f.halt.kind)
		case haltStorm:
			f.log.Error("no region is given to another datanode", "why", p.kind, "reason", p.reason)
		default:
			f.log.Warn("no region is given to another datanode", "why", p.kind, "reason", p.reason)
		}
	}
	f.halt = p
	return p, nil
}

// publish tells others of the member what the last look found.
func (f *failover) publish(failed []metasrv.NodeID) {
	look := &failoverLook{halt: f.halt, leaderless: map[string]int{}}
	for _, node := range failed {
		led := f.led.count(node)
		if led == 0 {
			continue
		}
		look.failed = append(look.failed, node)
		known := f.known[node]
		switch {
		case f.halt.kind != "":
			look.leaderless[f.halt.kind] += led
		case known != nil:
			for why, n := range known.stuck {
				look.leaderless[why] += n
			}
		}
	}
	slices.Sort(look.failed)
	f.term.failover.Store(look)
}

// sum returns how many regions lack a leader.
func (l *failoverLook) sum() int {
	n := 0
	if l != nil {
		for count := range maps.Values(l.leaderless) {
			n += count
		}
	}
	return n
}

// pausedWhy returns why no region is given to another node, "" where nothing keeps it or this member doesn't know.
func (s *services) pausedWhy(view state.View) string {
	if p, _, err := halted(view); err == nil && p.kind != "" {
		return p.reason
	}
	if t := s.term.Load(); t != nil {
		if look := t.failover.Load(); look != nil {
			return look.halt.reason
		}
	}
	return ""
}
