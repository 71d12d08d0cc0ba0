package procedure

import (
	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// add adds a learner on the target node.
func (p planner) add() Decision {
	target := metasrv.NodeID(p.r.Spec.TargetNodeId)
	for _, r := range p.region.Replicas {
		if r.NodeId == p.r.Spec.TargetNodeId {
			return p.rollBack("node %d has replica %d of the region already", target, r.ReplicaId)
		}
	}
	switch n := p.v.Node(target); {
	case !n.Registered:
		return p.rollBack("node %d is not registered", target)
	case n.Draining:
		return p.rollBack("node %d gets no replicas: it is being drained, or was", target)
	case !n.Live:
		return waitFor("node %d to send heartbeats", target)
	case p.leader() == nil || p.region.Demoting:
		return waitFor("the region to have a leader, which feeds the new replica")
	default:
		return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP, &storagepb.RegionChange{
			Change: &storagepb.RegionChange_AddReplica{AddReplica: &storagepb.AddReplica{
				NodeId: uint64(target), Incarnation: uint64(n.Incarnation),
			}},
		})
	}
}

// catchUp waits until the region leader has taken the new replica into the in-sync set.
func (p planner) catchUp() Decision {
	target := p.target()
	switch {
	case target == nil:
		return p.rollBack("the new replica %d was removed by someone else", p.r.TargetReplicaId)
	case p.v.Lost(target):
		return p.rollBack("node %d came back with other storage: the new replica is lost", target.NodeId)
	case !target.InSync && !p.node(target).Registered:
		return p.rollBack("node %d was removed", target.NodeId)
	case !target.InSync && p.node(target).Down:
		return p.rollBack("node %d is down", target.NodeId)
	case !target.InSync && !p.v.Report(target).Reported:
		return waitFor("node %d to make the new replica", target.NodeId)
	case !target.InSync:
		return waitFor("the new replica on node %d to catch up", target.NodeId)
	case !removes(p.r):
		return p.done()
	case p.leads(p.source()):
		return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE, nil)
	}
	return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE, nil)
}

// demote has the region leader stop, if that is still what is in the way.
func (p planner) demote() Decision {
	target := p.target()
	if p.leads(target) {
		return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION, nil)
	}
	if removes(p.r) && !p.leads(p.source()) {
		return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE, nil) // failover was faster
	}
	if why := p.canLead(target); why != "" {
		return p.retarget(target, why)
	}
	if p.region.Demoting {
		return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION, nil)
	}
	return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION, &storagepb.RegionChange{
		Change: &storagepb.RegionChange_BeginDemotion{BeginDemotion: &storagepb.BeginDemotion{}},
	})
}

// retarget goes on where the target can't lead: a new replica may catch up again, and for one that is removed any other
// may take over. target may be nil.
func (p planner) retarget(target *storagepb.ReplicaRecord, why string) Decision {
	switch {
	case p.unheard(target):
		return waitToHear(target)
	case target != nil && adds(p.r) && !p.v.Lost(target) && !target.InSync:
		return p.again(metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP, "%s: it fell out of the in-sync set again", why)
	case p.r.Spec.Kind == metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA:
		next, unheard := p.successor()
		if unheard != nil {
			return waitToHear(unheard)
		}
		if next != nil {
			d := p.again(metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE, "%s: replica %d is to take over", why, next.ReplicaId)
			d.Step.TargetReplicaId = next.ReplicaId
			return d
		}
	case target != nil && target.InSync && !p.v.Lost(target) && !p.node(target).Down:
		return waitFor("node %d to send heartbeats", target.NodeId)
	}
	return p.rollBack("%s", why)
}

// awaitDemotion elects the target once nobody else acknowledges writes.
func (p planner) awaitDemotion() Decision {
	target := p.target()
	switch {
	case p.leads(target):
		return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION, nil)
	case !p.region.Demoting:
		return p.again(metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE, "replica %d was elected meanwhile", p.region.LeaderReplicaId)
	}
	if p.unheard(target) {
		return waitToHear(target)
	}
	if why := p.canLead(target); why != "" {
		return p.rollBack("%s", why)
	}
	if !p.stopped() {
		return waitFor("the region leader to stop, at the latest when its lease ends")
	}
	return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION, elect(target))
}

func elect(r *storagepb.ReplicaRecord) *storagepb.RegionChange {
	return &storagepb.RegionChange{Change: &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: r.ReplicaId}}}
}

// awaitPromotion waits until the new region leader reports that it leads.
func (p planner) awaitPromotion() Decision {
	target := p.target()
	if !p.leads(target) {
		return p.again(metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE, "replica %d was elected meanwhile", p.region.LeaderReplicaId)
	}
	report := p.v.Report(target)
	leads := report.Reported && !report.Demoted && report.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER && report.LeaderEpoch == p.region.LeaderEpoch
	switch {
	case !leads:
		return waitFor("node %d to lead the region", target.NodeId)
	case removes(p.r):
		return p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE, nil)
	}
	return p.done()
}

// remove removes the old replica. It is never the leader, and of a migration never before the new one is in sync.
func (p planner) remove() Decision {
	source := p.source()
	switch {
	case source == nil:
		return p.done()
	case p.leads(source):
		return p.handOver()
	case adds(p.r) && (p.target() == nil || !p.target().InSync):
		return p.again(metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP, "the new replica is not in sync any more")
	case p.needed(source):
		return p.waitForLeader()
	}
	d := p.end(metasrvpb.ProcedureState_PROCEDURE_STATE_DONE, "")
	d.Step.Change = p.removal(source)
	return d
}

// needed reports whether a replica may be the only one left with all rows: it is in sync, and it is not certain that the region
// leader, which has them too, is still there. Failover gives the region another leader, where it may.
func (p planner) needed(r *storagepb.ReplicaRecord) bool {
	leader := p.leader()
	return r.InSync && !p.v.Lost(r) && (leader == nil || p.v.Lost(leader) || !p.node(leader).Live)
}

func (p planner) waitForLeader() Decision {
	if leader := p.leader(); leader != nil {
		return waitFor("the region to have a leader that is there, which node %d is not: an in-sync replica is removed only then", leader.NodeId)
	}
	return waitFor("the region to have a leader: an in-sync replica is removed only then")
}

// handOver has another replica take over from the one that is to be removed.
func (p planner) handOver() Decision {
	target := p.target()
	if !adds(p.r) && p.canLead(target) != "" {
		var unheard *storagepb.ReplicaRecord
		if target, unheard = p.successor(); unheard != nil {
			return waitToHear(unheard)
		}
		if target == nil {
			return p.rollBack("no other replica of the region can lead it: none is in sync on a live node")
		}
	}
	d := p.step(metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE, nil)
	if target != nil {
		d.Step.TargetReplicaId = target.ReplicaId
	}
	return d
}

// successor returns a replica that can lead instead of the present region leader, nil where there is none. Nodes that are
// not being drained come first. Where there is only one of which a new metasrv leader has not heard yet, that is unheard.
func (p planner) successor() (found, unheard *storagepb.ReplicaRecord) {
	for _, r := range p.region.Replicas {
		switch {
		case p.leads(r) || r.ReplicaId == p.r.Spec.ReplicaId:
		case p.unheard(r):
			unheard = r
		case p.canLead(r) == "" && (found == nil || p.node(found).Draining && !p.node(r).Draining):
			found = r
		}
	}
	if found != nil {
		unheard = nil
	}
	return found, unheard
}

func (p planner) removal(r *storagepb.ReplicaRecord) *storagepb.RegionChange {
	return &storagepb.RegionChange{
		RegionId: p.region.RegionId, LeaderEpoch: p.region.LeaderEpoch, ConfVersion: p.region.ConfVersion,
		Change: &storagepb.RegionChange_RemoveReplica{RemoveReplica: &storagepb.RemoveReplica{ReplicaId: r.ReplicaId}},
	}
}

// undo takes back what the procedure did, and ends it. It never gives up: a region that is left demoting serves nobody.
func (p planner) undo() Decision {
	if d, ok := p.restoreLeader(); ok {
		return d
	}
	ended := metasrvpb.ProcedureState_PROCEDURE_STATE_FAILED
	if p.r.Cancelled {
		ended = metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED
	}
	d := p.end(ended, "")
	if target := p.target(); adds(p.r) && target != nil && !p.leads(target) {
		if p.needed(target) {
			return p.waitForLeader()
		}
		d.Step.Change = p.removal(target)
	}
	return d
}

// restoreLeader gives the leadership back to the replica that had it; false where nothing is left to do. The present leader
// of a region that is handed over may be elected again at once: its lease is its own.
func (p planner) restoreLeader() (Decision, bool) {
	source, leader := p.source(), p.leader()
	taken := source != nil && p.leads(p.target())
	back := taken && p.canLead(source) == ""
	switch {
	case leader == nil:
		return Decision{}, false
	case taken && p.unheard(source):
		return waitToHear(source), true
	case p.region.Demoting && !back:
		return p.step(p.r.Step, elect(leader)), true
	case p.region.Demoting && p.stopped():
		return p.step(p.r.Step, elect(source)), true
	case p.region.Demoting:
		return waitFor("node %d to stop, at the latest when its lease ends", leader.NodeId), true
	case back:
		return p.step(p.r.Step, &storagepb.RegionChange{
			Change: &storagepb.RegionChange_BeginDemotion{BeginDemotion: &storagepb.BeginDemotion{}},
		}), true
	}
	return Decision{}, false
}
