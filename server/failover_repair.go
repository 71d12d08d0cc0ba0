package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/router"
)

// absences are the replicas that their nodes don't have.
type absences map[metasrv.ReplicaID]heartbeat.NodeAbsence

func absencesOf(t *heartbeat.Tracker) absences {
	found := absences{}
	for _, a := range t.Absent() {
		found[a.Replica] = a
	}
	return found
}

// repair changes regions whose nodes are heard, and that can't go on as they are: what a node doesn't have leaves the in-sync
// set (rule 21) or, if it leads, is replaced; a handover that nobody brings to its end is taken back.
func (f *failover) repair(ctx context.Context, p *electionPlan) error {
	wanted := map[metasrv.RegionID]bool{}
	for _, a := range p.absent {
		wanted[a.Region] = true
	}
	for _, id := range f.term.tracker.HandedOver() {
		wanted[id] = true
	}
	f.letGo(wanted)
	work, err := f.work(p, slices.Sorted(maps.Keys(wanted)))
	if err != nil {
		return err
	}
	if len(work.shrink.GetChanges()) > 0 {
		if err := f.shrink(ctx, work.shrink); err != nil {
			return err
		}
	}
	return f.replace(ctx, work.replace)
}

// repairs are the changes that one look at regions calls for, at most as many as a command holds of each.
type repairs struct {
	shrink  *storagepb.ChangeRegions
	replace []takeover
}

// work plans the repairs of regions, which are sorted.
func (f *failover) work(p *electionPlan, regions []metasrv.RegionID) (repairs, error) {
	w := repairs{shrink: &storagepb.ChangeRegions{}}
	var record router.Record
	for i, id := range regions {
		if i == 0 || id.Table() != regions[i-1].Table() {
			var err error
			if record, err = router.Get(p.view, id.Table()); err != nil && !errors.Is(err, metasrv.ErrTableNotFound) {
				return w, err
			}
		}
		region := regionIn(record, id)
		if region == nil {
			continue // its table is no longer public
		}
		if change := p.shrunk(region); change != nil {
			w.shrink.Changes = append(w.shrink.Changes, change)
		} else if t, ok := f.replacement(p, record.Route, region); ok {
			w.replace = append(w.replace, t)
		}
		if len(w.shrink.Changes) == router.MaxRegionChanges || len(w.replace) == router.MaxRegionChanges {
			f.survey = p.now // the others at once
			break
		}
	}
	return w, nil
}

// regionIn returns a region of a table, nil where that has none of the id.
func regionIn(record router.Record, id metasrv.RegionID) *storagepb.RegionRecord {
	for _, region := range record.Route.GetRegions() {
		if region.GetRegionId() == uint64(id) {
			return region
		}
	}
	return nil
}

// shrunk returns the change that takes the followers that nobody has out of the in-sync set of a region, nil where there are
// none. The region leader stays in it: where that is absent too, its successor's election takes the others out.
func (p *electionPlan) shrunk(region *storagepb.RegionRecord) *storagepb.RegionChange {
	var stay []uint64
	leaves := false
	for _, r := range region.GetReplicas() {
		c := p.of(r)
		gone := c == router.Absent || c == router.SetBack || c == router.OtherStorage
		leads := r.GetReplicaId() == region.GetLeaderReplicaId()
		switch {
		case leads && gone:
			return nil
		case r.GetInSync() && gone:
			leaves = true
		case r.GetInSync():
			stay = append(stay, r.GetReplicaId())
		}
	}
	if !leaves {
		return nil
	}
	return &storagepb.RegionChange{
		RegionId: region.GetRegionId(), LeaderEpoch: region.GetLeaderEpoch(), ConfVersion: region.GetConfVersion(),
		Change: &storagepb.RegionChange_SetInSync{SetInSync: &storagepb.SetInSync{ReplicaIds: stay}},
	}
}

func (f *failover) shrink(ctx context.Context, command *storagepb.ChangeRegions) error {
	result, err := f.changeRegions(ctx, command)
	if err != nil {
		return err
	}
	for i, r := range result.GetResults() {
		id := command.Changes[i].GetRegionId()
		if r.GetRefusal() != nil {
			f.metrics.count(outcomeRefused)
			f.log.Warn("a replica that its node doesn't have could not be taken out of the in-sync set", "region_id", id, "reason", r.GetRefusal().GetMessage())
			continue
		}
		f.metrics.count(outcomeShrunk)
		f.log.Warn("a replica that its node doesn't have left the in-sync set", "region_id", id, "in_sync", command.Changes[i].GetSetInSync().GetReplicaIds())
	}
	return nil
}

// waitingRegion is a region that is kept out of the grants to its leader's node, which is heard, until what was granted before
// has ended.
type waitingRegion struct {
	node  metasrv.NodeID
	until time.Time
}

// replacement returns the election that a region needs whose leader's node is heard, once nothing that was granted for it
// lasts any more.
func (f *failover) replacement(p *electionPlan, route *storagepb.RouteRecord, region *storagepb.RegionRecord) (takeover, bool) {
	id, node := metasrv.RegionID(region.GetRegionId()), leaderNode(region)
	leader := replicaIn(region, region.GetLeaderReplicaId())
	condition := p.of(leader)
	gone := condition == router.Absent || condition == router.SetBack || condition == router.OtherStorage
	if !gone && (condition != router.Reachable || !region.GetDemoting() || procedure.OfRegion(p.view, id) != 0) {
		return takeover{}, false
	}
	change := backTo(region)
	if gone {
		if change, _ = p.successor(route, region); change == nil {
			return takeover{}, false
		}
	}
	w, waits := f.waiting[id]
	if !waits || w.node != node {
		f.release(id)
		w = waitingRegion{node: node, until: f.term.tracker.Withhold(node, id)}
		f.waiting[id] = w
	}
	return takeover{node: node, change: change, until: w.until}, !p.now.Before(w.until)
}

// backTo returns the election of the one who leads a region anyway, which ends its demotion.
func backTo(region *storagepb.RegionRecord) *storagepb.RegionChange {
	return &storagepb.RegionChange{
		RegionId: region.GetRegionId(), LeaderEpoch: region.GetLeaderEpoch(), ConfVersion: region.GetConfVersion(),
		Change: &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: region.GetLeaderReplicaId()}},
	}
}

func replicaIn(region *storagepb.RegionRecord, id uint64) *storagepb.ReplicaRecord {
	for _, r := range region.GetReplicas() {
		if r.GetReplicaId() == id {
			return r
		}
	}
	return nil
}

// replace carries out the elections of regions that were kept out of grants until now.
func (f *failover) replace(ctx context.Context, due []takeover) error {
	if len(due) == 0 {
		return nil
	}
	elected, err := f.elect(ctx, due)
	if err != nil {
		return err
	}
	for _, t := range due {
		f.release(t.region())
	}
	f.log.Warn("regions got leaders whose leader's node doesn't have them, or whose handover was given up", "elected", elected)
	return nil
}

// release lets a region be granted again.
func (f *failover) release(id metasrv.RegionID) {
	if w, ok := f.waiting[id]; ok {
		f.term.tracker.Release(w.node, id)
		delete(f.waiting, id)
	}
}

// letGo lets all regions be granted again but those that are wanted.
func (f *failover) letGo(wanted map[metasrv.RegionID]bool) {
	for id := range f.waiting {
		if !wanted[id] {
			f.release(id)
		}
	}
}
