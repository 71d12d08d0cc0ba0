package server

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/router"
)

const (
	// stuckPeriod is when regions are looked at again that nobody could lead.
	stuckPeriod = time.Second
	// longestStuck bounds the pause, which doubles, where nobody can lead them before another failed node comes back: that is
	// noticed, and a look at all routes of a node has its price.
	longestStuck = 30 * time.Second
)

// failedNode is a node that has failed and was looked at.
type failedNode struct {
	// again is when it is looked at again, pause what lay between that and the last look, zero before the end of the first.
	again time.Time
	pause time.Duration
	// stuck counts its regions that nobody can lead, by why.
	stuck map[string]int
	// waitsFor are the failed nodes that could lead some of them.
	waitsFor map[metasrv.NodeID]struct{}
	// look is under way, else nil.
	look *nodeLook
}

// nodeLook is a look at the regions of a failed node, which may take several looks at all nodes.
type nodeLook struct {
	began    time.Time
	rest     []metasrv.TableID
	elected  int
	stuck    map[string]int
	waitsFor map[metasrv.NodeID]struct{}
	// hopeful: some regions could be led by nodes that are heard, as soon as those have reported them.
	hopeful bool
}

// due returns the nodes that have failed and lead regions, but for those that were looked at a moment ago. Those that were not
// looked at in full yet come first.
func (f *failover) due(failed []metasrv.NodeID, now time.Time) []metasrv.NodeID {
	before := f.failed
	f.failed = make(map[metasrv.NodeID]struct{}, len(failed))
	for _, node := range failed {
		f.failed[node] = struct{}{}
		if _, known := before[node]; !known {
			f.metrics.failures.Inc()
		}
	}
	var back []metasrv.NodeID
	for node := range before {
		if _, still := f.failed[node]; !still {
			back = append(back, node)
			delete(f.known, node)
		}
	}
	changed, all := f.led.takeChanged()
	for node, k := range f.known {
		_, itself := changed[node]
		if all || itself || slices.ContainsFunc(back, func(id metasrv.NodeID) bool { _, helps := k.waitsFor[id]; return helps }) {
			k.helped()
		}
	}
	var due []metasrv.NodeID
	for _, node := range failed {
		if k := f.known[node]; f.led.leads(node) && (k == nil || k.look != nil || !now.Before(k.again)) {
			due = append(due, node)
		}
	}
	seen := func(node metasrv.NodeID) int {
		if k := f.known[node]; k != nil && k.pause > 0 {
			return 1
		}
		return 0
	}
	slices.SortFunc(due, func(a, b metasrv.NodeID) int { return cmp.Or(cmp.Compare(seen(a), seen(b)), cmp.Compare(a, b)) })
	return due
}

// helped has a node looked at again that was looked at more than stuckPeriod ago, for something changed that may help.
func (k *failedNode) helped() {
	if k.look != nil {
		k.look.hopeful = true
	}
	if k.pause > stuckPeriod {
		k.again, k.pause = k.again.Add(stuckPeriod-k.pause), stuckPeriod
	}
}

// replaceLeaders elects leaders for the regions that a node led. It says whether there are more than this look has time for.
func (f *failover) replaceLeaders(ctx context.Context, p *electionPlan, node metasrv.NodeID) (more bool, err error) {
	k := f.known[node]
	if k == nil {
		k = &failedNode{}
		f.known[node] = k
	}
	if present, ok := p.registration(node); ok && !present.KeepsLeases {
		*k = failedNode{again: p.now.Add(stuckPeriod), pause: stuckPeriod}
		why := router.StandstillUnleased // nobody may take them over
		if present.Group != "" {
			why = router.StandstillGroup // whose next writer gets them
		}
		k.stuck = map[string]int{why: f.led.count(node)}
		return false, nil
	}
	if k.look == nil {
		k.look = &nodeLook{
			began: p.now, rest: slices.Sorted(maps.Keys(f.led.nodes[node])),
			stuck: map[string]int{}, waitsFor: map[metasrv.NodeID]struct{}{},
		}
	}
	look := k.look
	var batch []takeover
	for len(look.rest) > 0 && f.planned < f.lookTime {
		began := time.Now()
		if batch, err = f.successors(p, node, look, batch); err != nil {
			return false, err
		}
		look.rest = look.rest[1:]
		f.planned += time.Since(began)
		if len(batch) < router.MaxRegionChanges {
			continue
		}
		if err := f.electAll(ctx, look, batch); err != nil {
			return false, err
		}
		batch = batch[:0]
	}
	if err := f.electAll(ctx, look, batch); err != nil {
		return false, err
	}
	if len(look.rest) > 0 {
		return true, nil
	}
	f.looked(k, node, p.now)
	return false, nil
}

// successors adds the elections of the regions of the next table that a failed node led.
func (f *failover) successors(p *electionPlan, node metasrv.NodeID, look *nodeLook, batch []takeover) ([]takeover, error) {
	record, err := router.Get(p.view, look.rest[0])
	if errors.Is(err, metasrv.ErrTableNotFound) {
		return batch, nil // nothing is served of a table that is not public
	}
	if err != nil {
		return nil, err
	}
	for _, region := range record.Route.GetRegions() {
		if leaderNode(region) != node {
			continue
		}
		if change, why := p.successor(record.Route, region); change != nil {
			batch = append(batch, takeover{node: node, change: change})
		} else {
			look.stuck[why]++
			look.wait(p, record.Route, region)
		}
	}
	return batch, nil
}

// wait notes what could help a region that nobody can lead.
func (l *nodeLook) wait(p *electionPlan, route *storagepb.RouteRecord, region *storagepb.RegionRecord) {
	l.hopeful = l.hopeful || route.GetUncleanFailover() // which depends on how long others are silent
	for _, r := range region.GetReplicas() {
		node := metasrv.NodeID(r.GetNodeId())
		switch {
		case !r.GetInSync() || r.GetReplicaId() == region.GetLeaderReplicaId():
		case p.tracker.HasFailed(node, p.now):
			l.waitsFor[node] = struct{}{}
		default:
			l.hopeful = true
		}
	}
}

// electAll carries out elections, as many in a command as that holds.
func (f *failover) electAll(ctx context.Context, look *nodeLook, batch []takeover) error {
	for part := range slices.Chunk(batch, router.MaxRegionChanges) {
		n, err := f.elect(ctx, part)
		look.elected += n
		if err != nil {
			return err
		}
	}
	return nil
}

// looked ends the look at a node.
func (f *failover) looked(k *failedNode, node metasrv.NodeID, now time.Time) {
	look, first := k.look, k.pause == 0
	pause := min(max(stuckPeriod, 2*k.pause), longestStuck)
	if look.hopeful || look.elected > 0 {
		pause = stuckPeriod
	}
	*k = failedNode{again: now.Add(pause), pause: pause, stuck: look.stuck, waitsFor: look.waitsFor}
	if look.elected > 0 || len(look.stuck) > 0 && first {
		f.log.Warn("a datanode has failed: others lead its regions, where that is possible", "node_id", uint64(node), "elected", look.elected,
			"without_leader", max(0, f.led.count(node)-look.elected), "took", time.Since(look.began))
	}
}
