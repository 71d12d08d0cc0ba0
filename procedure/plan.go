package procedure

import (
	"fmt"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// maxAttempts is how often a procedure plans anew before it is given up.
const maxAttempts = 10

// View is what is seen of the region that a procedure works on.
type View struct {
	// Region is what the state says, nil where its table is not PUBLIC any more.
	Region *storagepb.RegionRecord
	// Now is leader time.
	Now state.LeaderTime
	// Node says what is known of a node.
	Node func(metasrv.NodeID) Node
	// Report says what a node last reported of a replica of the region.
	Report func(*storagepb.ReplicaRecord) Report
	// Lost says whether a replica's node came back with other storage.
	Lost func(*storagepb.ReplicaRecord) bool
	// LeaseOver: the node of the region leader gets no grant for the region any more, and what it was granted has ended.
	LeaseOver bool
	// Limits bound the steps.
	Limits Limits
}

// Node is what is known of a node.
type Node struct {
	Registered bool
	// Live: it sends heartbeats. Down: it has sent none for long. A node may be neither.
	Live, Down bool
	// Unheard: the metasrv leader is new, and has not waited long enough to say.
	Unheard bool
	// Draining: it gets no replicas.
	Draining    bool
	Incarnation metasrv.Incarnation
}

// Report is what a node last reported of a replica.
type Report struct {
	// Reported is false where the node does not report the replica.
	Reported    bool
	Role        metasrvpb.ReplicaRole
	LeaderEpoch uint64
	// Demoted: it led under LeaderEpoch, and acknowledges nothing any more.
	Demoted bool
}

// Limits are the times that steps have; 0 is for ever. What takes longer is taken back.
type Limits struct {
	Add, CatchUp, Demote, AwaitDemotion, AwaitPromotion, Remove time.Duration
}

// DefaultLimits returns the limits of a metasrv leader whose leases last so long.
func DefaultLimits(lease time.Duration) Limits {
	return Limits{
		Add: time.Minute, CatchUp: 6 * time.Hour, Demote: time.Minute, AwaitDemotion: time.Minute + 2*lease,
		AwaitPromotion: time.Minute, Remove: time.Minute,
	}
}

// Of returns the limit of a step.
func (l Limits) Of(step metasrvpb.ProcedureStep) time.Duration {
	switch step {
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_ADD:
		return l.Add
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP:
		return l.CatchUp
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE:
		return l.Demote
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION:
		return l.AwaitDemotion
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION:
		return l.AwaitPromotion
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE:
		return l.Remove
	}
	return 0
}

// FirstStep returns the step with which a kind of procedure begins.
func FirstStep(kind metasrvpb.ProcedureKind) metasrvpb.ProcedureStep {
	switch kind {
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION, metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA:
		return metasrvpb.ProcedureStep_PROCEDURE_STEP_ADD
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER:
		return metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA:
		return metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE
	}
	return metasrvpb.ProcedureStep_PROCEDURE_STEP_MOVE
}

// Decision is what a procedure does next.
type Decision struct {
	// Step is the command that brings it on, nil where it waits.
	Step *storagepb.StepProcedure
	// Waiting says for what, for people.
	Waiting string
}

// HandsOver reports whether a procedure waits for the region leader to stop: then that one's node must get no more
// grants for the region, and View.LeaseOver says when its last one has ended.
func HandsOver(r *storagepb.ProcedureRecord, region *storagepb.RegionRecord) bool {
	return region.GetDemoting() &&
		(r.Step == metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION || r.Step == metasrvpb.ProcedureStep_PROCEDURE_STEP_UNDO)
}

// Plan decides on the next step of a procedure that works on a region. Whatever the step before came to, and whatever
// others did to the region meanwhile, is in the view: failover asks nobody, and the procedure goes on from what it finds.
func Plan(r *storagepb.ProcedureRecord, v View) Decision {
	p := planner{r: r, v: v, region: v.Region}
	if v.Region == nil {
		return p.end(metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED, "the table was dropped")
	}
	if r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK {
		return p.undo()
	}
	d := p.run()
	if d.Step != nil && d.Step.Error != "" && r.Attempts >= maxAttempts && d.Step.State == r.State {
		return p.rollBack("given up after %d attempts: %s", r.Attempts, d.Step.Error)
	}
	limit := state.LeaderTime(r.StepTimeoutMs)
	if since := state.LeaderTime(r.StepSinceMs); d.Step == nil && limit > 0 && v.Now > since+limit {
		return p.rollBack("gave up after %s of waiting for %s", time.Duration(r.StepTimeoutMs)*time.Millisecond, d.Waiting) //nolint:gosec // hours
	}
	return d
}

// planner decides on the next step of one procedure.
type planner struct {
	r      *storagepb.ProcedureRecord
	v      View
	region *storagepb.RegionRecord
}

func (p planner) run() Decision {
	switch p.r.Step {
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_ADD:
		return p.add()
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP:
		return p.catchUp()
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE:
		return p.demote()
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION:
		return p.awaitDemotion()
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION:
		return p.awaitPromotion()
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE:
		return p.remove()
	}
	return p.rollBack("step %s is unknown to this version of metasrv", p.r.Step)
}

// step returns the decision for a step to another one, nil change for one that changes nothing of the region.
func (p planner) step(to metasrvpb.ProcedureStep, change *storagepb.RegionChange) Decision {
	if change != nil {
		change.RegionId, change.LeaderEpoch, change.ConfVersion = p.region.RegionId, p.region.LeaderEpoch, p.region.ConfVersion
	}
	return Decision{Step: &storagepb.StepProcedure{
		Id: p.r.Id, Version: p.r.Version, State: p.r.State, Step: to, Change: change,
		StepTimeoutMs: uint64(p.v.Limits.Of(to).Milliseconds()), //nolint:gosec // never negative
	}}
}

// again returns the decision to go on with another step because of what others did.
func (p planner) again(to metasrvpb.ProcedureStep, format string, args ...any) Decision {
	d := p.step(to, nil)
	d.Step.Error = fmt.Sprintf(format, args...)
	return d
}

func (p planner) rollBack(format string, args ...any) Decision {
	d := p.again(metasrvpb.ProcedureStep_PROCEDURE_STEP_UNDO, format, args...)
	d.Step.State = metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK
	return d
}

func (p planner) end(s metasrvpb.ProcedureState, why string) Decision {
	return Decision{Step: &storagepb.StepProcedure{Id: p.r.Id, Version: p.r.Version, State: s, Step: p.r.Step, Error: why}}
}

func (p planner) done() Decision { return p.end(metasrvpb.ProcedureState_PROCEDURE_STATE_DONE, "") }

func waitFor(format string, args ...any) Decision {
	return Decision{Waiting: fmt.Sprintf(format, args...)}
}

// replica returns a replica of the region, nil where it has none of that id.
func (p planner) replica(id uint64) *storagepb.ReplicaRecord {
	i := slices.IndexFunc(p.region.Replicas, func(r *storagepb.ReplicaRecord) bool { return id != 0 && r.ReplicaId == id })
	if i < 0 {
		return nil
	}
	return p.region.Replicas[i]
}

func (p planner) source() *storagepb.ReplicaRecord { return p.replica(p.r.Spec.ReplicaId) }
func (p planner) target() *storagepb.ReplicaRecord { return p.replica(p.r.TargetReplicaId) }
func (p planner) leader() *storagepb.ReplicaRecord { return p.replica(p.region.LeaderReplicaId) }

func (p planner) leads(r *storagepb.ReplicaRecord) bool {
	return r != nil && r.ReplicaId == p.region.LeaderReplicaId
}

func (p planner) node(r *storagepb.ReplicaRecord) Node { return p.v.Node(metasrv.NodeID(r.NodeId)) }

// unheard reports whether a replica could be the region leader, were it known that its node is there.
func (p planner) unheard(r *storagepb.ReplicaRecord) bool {
	return r != nil && r.InSync && !p.v.Lost(r) && p.node(r).Unheard
}

func waitToHear(r *storagepb.ReplicaRecord) Decision {
	return waitFor("the new metasrv leader to hear from node %d", r.NodeId)
}

// canLead says why a replica can't be made the region leader now, "" where it can.
func (p planner) canLead(r *storagepb.ReplicaRecord) string {
	switch {
	case r == nil:
		return "the replica was removed by someone else"
	case p.v.Lost(r):
		return fmt.Sprintf("replica %d is lost: node %d came back with other storage", r.ReplicaId, r.NodeId)
	case !r.InSync:
		return fmt.Sprintf("replica %d on node %d is not in sync", r.ReplicaId, r.NodeId)
	case !p.node(r).Live:
		return fmt.Sprintf("node %d sends no heartbeats", r.NodeId)
	}
	return ""
}

// stopped reports whether the region leader acknowledges nothing any more.
func (p planner) stopped() bool {
	if p.v.LeaseOver {
		return true
	}
	leader := p.leader()
	if leader == nil {
		return false
	}
	report := p.v.Report(leader)
	return report.Reported && report.Demoted && report.LeaderEpoch == p.region.LeaderEpoch
}

// adds reports whether the procedure makes a new replica.
func adds(r *storagepb.ProcedureRecord) bool {
	k := r.Spec.Kind
	return k == metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION || k == metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA
}

// removes reports whether the procedure removes a replica that was there.
func removes(r *storagepb.ProcedureRecord) bool {
	k := r.Spec.Kind
	return k == metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION || k == metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA
}

// Refused returns what a procedure does whose step was refused for a reason that does not pass by itself: it tries again,
// later, and after some tries takes back what it did. Taking back is tried for ever.
func Refused(r *storagepb.ProcedureRecord, v View, refusal error) Decision {
	p := planner{r: r, v: v, region: v.Region}
	if r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING && r.Attempts >= maxAttempts {
		return p.rollBack("given up after %d attempts: %v", r.Attempts, refusal)
	}
	return p.again(r.Step, "%v", refusal)
}
