package router

import (
	"fmt"
	"slices"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Reporter is the node whose report is judged.
type Reporter struct {
	Node metasrv.NodeID
	// StorageGeneration is that of its storage: replicas that were on an earlier one are lost.
	StorageGeneration uint64
	// KeepsLeases: any other node is told to drop replicas, and nothing else.
	KeepsLeases bool
}

// Standing is how a reported replica stands to the state, as far as leases go.
type Standing uint8

const (
	// Idle replicas need no lease: they don't lead, by their own report.
	Idle Standing = iota
	// Leading replicas lead their region by their own report and by the state, and know its configuration.
	Leading
	// Outdated replicas lead as Leading ones do, but know an older configuration of their region.
	Outdated
	// Refused replicas lead by their own report, and must not.
	Refused
)

// Agreement is what comparing a node's report of one table with the state came to.
type Agreement struct {
	// Standings are those of the reported replicas, in their order.
	Standings []Standing
	// Instructions bring the node to what the state says.
	Instructions []*metasrvpb.Instruction
	// Gone are replicas of a table that is given up or dropped which the node has no longer, for a ConfirmDropped command.
	Gone []*storagepb.DroppedReplica
	// Absent are replicas that lead or are in sync by the state and that the node doesn't have: it doesn't report them, or has
	// other storage by now.
	Absent []Absence
	// Demoting are the regions that the node leads and hands over.
	Demoting []metasrv.RegionID
}

// Absence is a replica that its node doesn't have.
type Absence struct {
	Region  metasrv.RegionID
	Replica metasrv.ReplicaID
	// Lost: the node has other storage than the replica was on. Otherwise it may not have opened it yet.
	Lost bool
}

// Agree compares what a node reports of one table with the state, as ReplicasToDrop does for a full report, and beyond
// that says which replicas lead as they report, and what brings the node to what the state says. address returns the address
// of a node.
//
// Of a table that is not PUBLIC nothing is led, and of one that is CREATING nothing is asked: its frontend creates the
// replicas.
func Agree(
	v state.View, by Reporter, table metasrv.TableID, report []ReportedReplica, address func(metasrv.NodeID) string,
) (Agreement, error) {
	if standings, ok := settled(v, by, table, report); ok {
		return Agreement{Standings: standings}, nil
	}
	c := &comparison{by: by, report: report, address: address}
	present := tableState(v, table)
	public := present == metasrvpb.TableState_TABLE_STATE_PUBLIC
	var retired []Record
	// All else needs no more than what drop finds without decoding: many tables are created at a time, with nodes that judge each.
	if isRetired(present) || public && by.KeepsLeases {
		var err error
		if c.record, err = tableIfAny(v, table); err != nil {
			return Agreement{}, err
		}
	}
	if isRetired(present) {
		retired = []Record{c.record}
	}
	c.Gone = absent(retired, by.Node, report)
	if err := c.drop(v, retired); err != nil {
		return Agreement{}, err
	}
	if !by.KeepsLeases {
		return c.Agreement, nil
	}
	c.refuseAll()
	if public {
		for _, region := range c.record.Route.Regions {
			c.region(region)
		}
	}
	return c.Agreement, nil
}

// tableIfAny returns a table in any state with its route, nothing where it does not exist.
func tableIfAny(v state.View, id metasrv.TableID) (Record, error) {
	table, err := catalog.GetTable(v, id)
	if isNotFound(err) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	return located(v, table)
}

// comparison compares a node's report of one table with the state.
type comparison struct {
	by      Reporter
	record  Record
	report  []ReportedReplica
	address func(metasrv.NodeID) string
	Agreement
}

// drop tells the node to drop what must go.
func (c *comparison) drop(v state.View, retired []Record) error {
	if len(c.report) == 0 {
		return nil
	}
	c.Standings = make([]Standing, len(c.report))
	j := newJudge(v, retired)
	for _, r := range c.report {
		reason, err := j.whyDrop(r)
		if err != nil {
			return err
		}
		if reason != "" {
			c.instruct(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DropRegion{DropRegion: dropOf(r, reason)}})
		}
	}
	return nil
}

// refuseAll says that nothing is led, until the state says otherwise.
func (c *comparison) refuseAll() {
	for i, r := range c.report {
		if r.leads() {
			c.Standings[i] = Refused
		}
	}
}

func (c *comparison) instruct(i *metasrvpb.Instruction) { c.Instructions = append(c.Instructions, i) }

// region compares one region of a PUBLIC table.
func (c *comparison) region(region *storagepb.RegionRecord) {
	for _, replica := range region.Replicas {
		if replica.NodeId != uint64(c.by.Node) {
			continue
		}
		if replica.StorageGeneration < c.by.StorageGeneration {
			c.absent(region, replica, true)
			continue // a lost replica can only leave the region
		}
		at := slices.IndexFunc(c.report, func(r ReportedReplica) bool {
			return uint64(r.Region) == region.RegionId && uint64(r.Replica) == replica.ReplicaId
		})
		switch leads := region.LeaderReplicaId == replica.ReplicaId; {
		case at < 0:
			c.absent(region, replica, false)
			c.missing(region, replica)
		case leads && region.Demoting:
			c.Demoting = append(c.Demoting, metasrv.RegionID(region.RegionId))
			c.demote(region, c.report[at], "the region is being handed over")
		case leads:
			c.lead(region, at)
		case c.report[at].leads():
			c.demote(region, c.report[at], "another replica leads the region")
		default:
			c.follow(region, replica, c.report[at])
		}
	}
}

func (c *comparison) absent(region *storagepb.RegionRecord, replica *storagepb.ReplicaRecord, lost bool) {
	if replica.InSync || region.LeaderReplicaId == replica.ReplicaId {
		c.Absent = append(c.Absent, Absence{metasrv.RegionID(region.RegionId), metasrv.ReplicaID(replica.ReplicaId), lost})
	}
}

// missing tells the node to open a replica that it doesn't report. A learner may not be there yet; one that is loses
// nothing by being added again.
func (c *comparison) missing(region *storagepb.RegionRecord, replica *storagepb.ReplicaRecord) {
	if !replica.Learner {
		c.instruct(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_OpenRegion{
			OpenRegion: &metasrvpb.OpenRegion{ReplicaId: replica.ReplicaId, Config: c.config(region)},
		}})
		return
	}
	add := &metasrvpb.AddLearner{ReplicaId: replica.ReplicaId, Config: c.config(region), Table: catalog.ToTable(c.record.Table)}
	for _, route := range NewBuilder(c.address).Add(c.record).RegionRoutes {
		if route.Region.Id == region.RegionId {
			add.Region = route.Region
		}
	}
	c.instruct(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_AddLearner{AddLearner: add}})
}

func (c *comparison) demote(region *storagepb.RegionRecord, r ReportedReplica, reason string) {
	if !r.leads() {
		return
	}
	c.instruct(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DemoteRegion{
		DemoteRegion: &metasrvpb.DemoteRegion{ReplicaId: uint64(r.Replica), Config: c.config(region), Reason: reason},
	}})
}

// lead compares a replica that leads its region. It knows a newer configuration than the state only where the state has
// lost something.
func (c *comparison) lead(region *storagepb.RegionRecord, at int) {
	r := c.report[at]
	if r.leads() && r.LeaderEpoch == region.LeaderEpoch {
		switch {
		case r.ConfVersion == region.ConfVersion:
			c.Standings[at] = Leading
			return
		case r.ConfVersion < region.ConfVersion:
			c.Standings[at] = Outdated
		}
	}
	c.instruct(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_PromoteRegion{
		PromoteRegion: &metasrvpb.PromoteRegion{ReplicaId: uint64(r.Replica), Config: c.config(region)},
	}})
}

// follow compares a replica that does not lead.
func (c *comparison) follow(region *storagepb.RegionRecord, replica *storagepb.ReplicaRecord, r ReportedReplica) {
	role := metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	if replica.Learner {
		role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
	}
	if region.LeaderReplicaId == 0 || r.Role == role && r.LeaderEpoch == region.LeaderEpoch && r.ConfVersion == region.ConfVersion {
		return
	}
	c.instruct(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_CatchUpRegion{
		CatchUpRegion: &metasrvpb.CatchUpRegion{ReplicaId: replica.ReplicaId, Config: c.config(region)},
	}})
}

func (c *comparison) config(region *storagepb.RegionRecord) *metasrvpb.RegionConfig {
	config := &metasrvpb.RegionConfig{
		RegionId: region.RegionId, LeaderEpoch: region.LeaderEpoch, ConfVersion: region.ConfVersion,
		LeaderReplicaId: region.LeaderReplicaId,
	}
	for _, r := range region.Replicas {
		config.Replicas = append(config.Replicas, &metasrvpb.ReplicaConfig{
			ReplicaId: r.ReplicaId, Peer: &metasrvpb.Peer{Id: r.NodeId, Addr: c.address(metasrv.NodeID(r.NodeId))},
			InSync: r.InSync, Learner: r.Learner,
		})
	}
	return config
}

// Concerned calls f with each table whose record or route the changes of one revision are about, and the nodes that have or had
// replicas of it. v is a state at or after the changes. f must not keep nodes.
func Concerned(v state.View, changes []state.Change, f func(table metasrv.TableID, nodes []metasrv.NodeID)) error {
	routed := make(map[metasrv.TableID]struct{})
	for i := range changes {
		id, isTable, err := ChangedTable(changes[i].Key)
		if err != nil {
			return err
		}
		if id == 0 || isTable {
			continue
		}
		nodes, err := nodesIn(changes[i].Prev, changes[i].Value)
		if err != nil {
			return fmt.Errorf("%s: %w", changes[i].Key, err)
		}
		routed[id] = struct{}{}
		f(id, nodes)
	}
	for i := range changes {
		id, isTable, err := ChangedTable(changes[i].Key)
		if err != nil {
			return err
		}
		if _, done := routed[id]; done || !isTable {
			continue // most changes of a table come with one of its route
		}
		nodes, err := nodesIn(routeValue(v, id))
		if err != nil {
			return fmt.Errorf("%s: %w", routeKey(id), err)
		}
		f(id, nodes)
	}
	return nil
}

// Placed calls f with each table in any state and the nodes that have replicas of it. f must not keep nodes.
func Placed(v state.View, f func(table metasrv.TableID, nodes []metasrv.NodeID)) error {
	for key, value := range v.Ascend(RoutePrefix, RouteStop) {
		id, err := tableOf(key, RoutePrefix)
		if err != nil {
			return err
		}
		nodes, err := nodesIn(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		f(id, nodes)
	}
	return nil
}

// nodesIn returns the nodes that stored routes name, each once.
func nodesIn(routes ...[]byte) ([]metasrv.NodeID, error) {
	var nodes []metasrv.NodeID
	for _, route := range routes {
		err := ReplicasIn(route, func(node uint64, _ bool) {
			if id := metasrv.NodeID(node); !slices.Contains(nodes, id) {
				nodes = append(nodes, id)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return nodes, nil
}
