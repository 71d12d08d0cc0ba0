package server

import (
	"context"
	"fmt"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

const (
	// repairPeriod is how often some regions are looked at, repairRegions how many about: all of a small cluster each time,
	// a million in some minutes, for a look at all of them at once would cost a second.
	repairPeriod  = time.Second
	repairRegions = 2000
	// maxRepairs is how many repairs run at once: each copies a replica, beside the work of clients.
	maxRepairs = 8
)

// rebuilds is how far the look for regions that lack replicas is.
type rebuilds struct {
	next   time.Time
	behind metasrv.TableID
	// silent are the datanodes that have been silent for so long that their replicas are rebuilt elsewhere.
	silent map[metasrv.NodeID]time.Duration
	// missing says since when replicas that are not in sync are not reported by their nodes, which are heard.
	missing map[metasrv.ReplicaID]time.Time
}

// repairAfter returns how long a datanode may be silent before its replicas are rebuilt elsewhere; 0: nothing is rebuilt.
func (d *driver) repairAfter() time.Duration { return d.t.settings.Load().repairAfter }

// planRepairs returns the procedures that rebuild what is missing of some regions. None in maintenance, and none while so many
// datanodes are down that the others could not take what they had.
func (d *driver) planRepairs(ctx context.Context, seen *sight, running int) ([]proposal, error) {
	if d.repairAfter() == 0 || seen.now.Before(d.rebuilds.next) || running >= maxRepairs {
		return nil, nil
	}
	d.rebuilds.next = seen.now.Add(repairPeriod)
	stopped, cfg, err := halted(seen.View)
	if err != nil || stopped.kind != "" {
		return nil, err
	}
	statuses, err := d.t.tracker.Nodes(seen.View, seen.now)
	if err != nil || d.tooManySilent(seen, statuses, int(cfg.GetMaxFailedPercent())) {
		return nil, err
	}
	var work []proposal
	looked := 0
	behind := d.rebuilds.behind
	d.rebuilds.behind = 0 // of the last table there is
	for record, err := range router.TablesBehind(seen.View, behind) {
		if err != nil {
			return nil, err
		}
		id := metasrv.TableID(record.Table.GetId())
		if record.Table.GetState() == metasrvpb.TableState_TABLE_STATE_PUBLIC && procedure.OfTable(seen.View, id) == 0 {
			seen.tables[id] = record.Route
			p, err := d.repairTable(ctx, seen, record.Route, maxRepairs-running-len(work))
			if err != nil {
				return nil, err
			}
			work = append(work, p...)
		}
		looked += len(record.Route.GetRegions())
		if running+len(work) >= maxRepairs || looked >= repairRegions {
			d.rebuilds.behind = id
			break
		}
	}
	return work, nil
}

// tooManySilent notes which nodes have been silent for long, and reports whether they are more than may fail.
func (d *driver) tooManySilent(seen *sight, statuses []heartbeat.NodeStatus, maxPercent int) bool {
	d.rebuilds.silent = map[metasrv.NodeID]time.Duration{}
	all, repairAfter := 0, d.repairAfter()
	for _, s := range statuses {
		info := s.Record.GetInfo()
		if s.Role != metasrvpb.NodeRole_NODE_ROLE_DATANODE || !info.GetKeepsLeases() || info.GetGroup() != "" {
			continue // what it has is rebuilt by others, if at all, and it takes nothing
		}
		all++
		if silence := d.t.tracker.Silence(s, seen.now); s.State == metasrvpb.NodeState_NODE_STATE_DOWN && silence >= repairAfter {
			d.rebuilds.silent[s.ID] = silence
		}
	}
	n := len(d.rebuilds.silent)
	return n > 1 && n*100 > all*maxPercent
}

// repairTable returns the repairs of a table's regions, at most so many.
func (d *driver) repairTable(ctx context.Context, seen *sight, route *storagepb.RouteRecord, most int) (work []proposal, err error) {
	for _, region := range route.Regions {
		if len(work) >= most {
			return work, nil
		}
		if procedure.OfRegion(seen.View, metasrv.RegionID(region.RegionId)) != 0 {
			continue
		}
		spec := d.repair(ctx, seen, route, region)
		if spec == nil {
			continue
		}
		spec.Automatic = true
		command, err := starter{services: d.services, ctx: ctx, seen: seen}.create(spec, 0)
		if err != nil {
			return nil, err
		}
		work = append(work, proposal{
			record: &storagepb.ProcedureRecord{Spec: spec}, kind: storagepb.CommandKind_COMMAND_KIND_CREATE_PROCEDURE, command: command,
		})
	}
	return work, nil
}

// repair returns what a region needs next, nil where it needs nothing, or nobody could give it. A region is fed by its leader,
// so one whose leader is not there waits for failover; one whose leader keeps no leases, or is the writer of a group, takes no
// part in any of this.
func (d *driver) repair(ctx context.Context, seen *sight, route *storagepb.RouteRecord, region *storagepb.RegionRecord) *storagepb.ProcedureSpec {
	leader := leaderNode(region)
	if r, _ := heartbeat.Registration(seen.View, leader); !r.KeepsLeases || !seen.node(leader).Live {
		return nil
	}
	there := 0
	for _, r := range region.Replicas {
		if r.ReplicaId == region.LeaderReplicaId {
			there++
			continue
		}
		id := metasrv.NodeID(r.NodeId)
		spec := &storagepb.ProcedureSpec{
			Kind:     metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA,
			RegionId: region.RegionId, NodeId: r.NodeId, ReplicaId: r.ReplicaId,
		}
		silence, silent := d.rebuilds.silent[id]
		switch {
		case !seen.node(id).Registered:
			spec.Reason = fmt.Sprintf("node %d was removed", id)
			return spec
		case seen.lost(r):
			spec.Reason = fmt.Sprintf("node %d came back with other storage", id)
			return spec
		case d.isMissing(seen, region, r):
			spec.Reason = fmt.Sprintf("node %d doesn't have replica %d", id, r.ReplicaId)
			return spec
		case silent:
			to, err := d.choose(ctx, seen, region, r.NodeId)
			if err != nil {
				continue
			}
			spec.Kind, spec.TargetNodeId = metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION, to
			spec.Reason = fmt.Sprintf("node %d has been silent for %s", id, silence.Round(time.Second))
			return spec
		}
		there++
	}
	if wanted := int(route.Replicas); there < wanted {
		if to, err := d.choose(ctx, seen, region, 0); err == nil {
			return &storagepb.ProcedureSpec{
				Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA, RegionId: region.RegionId, TargetNodeId: to,
				Reason: fmt.Sprintf("the region has %d of %d replicas", there, wanted),
			}
		}
	}
	return nil
}

// isMissing reports whether the node of a replica that is not in sync has been heard without it for as long as makes a node
// down. What is in sync by the state leaves the set first, which is failover's.
func (d *driver) isMissing(seen *sight, region *storagepb.RegionRecord, r *storagepb.ReplicaRecord) bool {
	id, node := metasrv.ReplicaID(r.ReplicaId), metasrv.NodeID(r.NodeId)
	_, reported := d.t.tracker.Region(node, metasrv.RegionID(region.RegionId), id)
	if r.InSync || reported || !seen.node(node).Live {
		delete(d.rebuilds.missing, id)
		return false
	}
	since, known := d.rebuilds.missing[id]
	if !known {
		if d.rebuilds.missing == nil {
			d.rebuilds.missing = map[metasrv.ReplicaID]time.Time{}
		}
		d.rebuilds.missing[id] = seen.now
	}
	return known && seen.now.Sub(since) >= d.t.tracker.Config().DownAfter
}

// mayGoOn reports whether a procedure goes on in maintenance: those of people do, and what hands a region over, for it would
// be left without a leader.
func mayGoOn(r *storagepb.ProcedureRecord) bool {
	switch r.Step {
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_ADD, metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP, metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE:
		return !r.Spec.Automatic
	}
	return true
}
