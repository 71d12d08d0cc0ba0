package raftfsm

import (
	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// goldenEntry is an entry of the log with the term that the log holds for it.
type goldenEntry struct {
	term  uint64
	entry *storagepb.Entry
}

// goldenLog builds a log entry by entry.
type goldenLog struct {
	entries []goldenEntry
	term    uint64
	now     uint64
}

func (g *goldenLog) add(commands ...*storagepb.Command) {
	g.now += 10
	g.entries = append(g.entries, goldenEntry{g.term, &storagepb.Entry{
		Version: goldenCommandVersion, Term: g.term, LeaderTimeMs: g.now, Commands: commands,
	}})
}

func cmd(kind storagepb.CommandKind, payload proto.Message) *storagepb.Command {
	return &storagepb.Command{Kind: kind, Payload: state.Encode(payload)}
}

// as gives a command an id.
func as(session, sequence, acknowledged uint64, c *storagepb.Command) *storagepb.Command {
	c.Id = &storagepb.CommandId{Session: session, Sequence: sequence, Acknowledged: acknowledged}
	return c
}

// planned makes a command one of a leader duty.
func planned(term uint64, c *storagepb.Command) *storagepb.Command {
	c.PlannedTerm = term
	return c
}

// goldenScript is the log of the version that is being developed: every kind of command, executed and refused, twice
// under one id, and what comes after it. A new kind gets its lines at the end of a part, so that the rest stays.
//
// The text of a refusal may change, so none may be remembered where the image is cut, after three quarters, nor at the end.
func goldenScript() []goldenEntry {
	g := &goldenLog{term: 2}
	goldenSystem(g)
	goldenKV(g)
	goldenCatalog(g)
	goldenTables(g)
	goldenRegions(g)
	goldenProcedures(g)
	goldenLocks(g)
	goldenConfig(g)
	goldenGroups(g)
	goldenLater(g)
	return g.entries
}

func member(id string) *storagepb.MemberRecord {
	return &storagepb.MemberRecord{
		Id: id, RaftAddr: id + ":3003", GrpcAddr: id + ":3002", HttpAddr: id + ":3004", Version: "v0.1.0", CommandVersion: goldenCommandVersion,
	}
}

func goldenSystem(g *goldenLog) {
	g.add(cmd(storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED,
		&storagepb.LeaderEstablished{Term: 2, Member: member("a"), ProposedClusterId: 77}))
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER, &storagepb.PublishMember{Member: member("b")}),
		cmd(storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER, &storagepb.PublishMember{Member: member("c")}),
		cmd(storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER, &storagepb.PublishMember{}), // refused
	)
	g.add(planned(2, cmd(storagepb.CommandKind_COMMAND_KIND_CONFIGURE_SESSIONS, &storagepb.ConfigureSessions{TtlMs: 60_000, IfUnset: true})))
	open := cmd(storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, &storagepb.OpenSession{})
	g.add(open, open, open) // 1, 2, 3
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_SET_CLUSTER_VERSION, &storagepb.SetClusterVersion{From: 1, Version: 1}), // refused
		cmd(storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION, &storagepb.CloseSession{Session: 2}),
	)
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER, &storagepb.PublishMember{Member: member("d")}),
		cmd(storagepb.CommandKind_COMMAND_KIND_REMOVE_MEMBER, &storagepb.RemoveMember{Id: "d", RaftAddr: "d:3003", WallTimeMs: 5}),
		cmd(storagepb.CommandKind_COMMAND_KIND_REMOVE_MEMBER, &storagepb.RemoveMember{Id: "d", WallTimeMs: 6}),                // changes nothing
		cmd(storagepb.CommandKind_COMMAND_KIND_REMOVE_MEMBER, &storagepb.RemoveMember{}),                                      // refused
		cmd(storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER, &storagepb.PublishMember{Member: member("d")}),                 // refused
		cmd(storagepb.CommandKind_COMMAND_KIND_END_QUARANTINE, &storagepb.EndQuarantine{ClusterId: 77}),                       // changes nothing
		cmd(storagepb.CommandKind_COMMAND_KIND_END_QUARANTINE, &storagepb.EndQuarantine{ClusterId: 77, Incarnation: 1 << 40}), // refused
		cmd(storagepb.CommandKind_COMMAND_KIND_SET_CLUSTER_VERSION, &storagepb.SetClusterVersion{From: 1, Version: goldenCommandVersion}),
	)
}

func goldenPut(key, value string) *storagepb.Command {
	return cmd(storagepb.CommandKind_COMMAND_KIND_PUT, &storagepb.Put{Key: []byte(key), Value: []byte(value), PrevKv: true})
}

func goldenKV(g *goldenLog) {
	g.add(goldenPut("a", "1"), goldenPut("b", "2"), goldenPut("a", "3"), goldenPut("c/1", ""), goldenPut("c/2", "x"))
	first := as(1, 1, 0, goldenPut("once", "1"))
	g.add(first, first) // also twice in an entry
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT, &storagepb.CompareAndPut{Key: []byte("a"), Expect: []byte("3"), Value: []byte("4")}),
		cmd(storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT, &storagepb.CompareAndPut{Key: []byte("a"), Expect: []byte("3"), Value: []byte("5")}),
		as(1, 1, 0, cmd(storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE, &storagepb.DeleteRange{Key: []byte("once")})), // refused: another kind
	)
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE, &storagepb.DeleteRange{Key: []byte("c/"), RangeEnd: []byte("c0"), PrevKv: true}),
		cmd(storagepb.CommandKind_COMMAND_KIND_BATCH_PUT, &storagepb.BatchPut{PrevKv: true, Pairs: []*storagepb.KvPair{
			{Key: []byte("d/1"), Value: []byte("1")}, {Key: []byte("d/2"), Value: []byte("2")}, {Key: []byte("a"), Value: []byte("6")},
		}}),
		cmd(storagepb.CommandKind_COMMAND_KIND_BATCH_DELETE, &storagepb.BatchDelete{PrevKv: true, Keys: [][]byte{[]byte("d/1"), []byte("none")}}),
		cmd(storagepb.CommandKind_COMMAND_KIND_MOVE_VALUE, &storagepb.MoveValue{FromKey: []byte("d/2"), ToKey: []byte("moved")}),
		cmd(storagepb.CommandKind_COMMAND_KIND_MOVE_VALUE, &storagepb.MoveValue{FromKey: []byte("none"), ToKey: []byte("moved")}),
	)
	txn := func(version uint64) *storagepb.Command {
		return cmd(storagepb.CommandKind_COMMAND_KIND_TXN, &storagepb.Txn{
			Compares: []*metasrvpb.Compare{{
				Key: []byte("a"), Operator: metasrvpb.CompareOperator_COMPARE_OPERATOR_EQUAL, Target: &metasrvpb.Compare_Version{Version: version},
			}},
			Success: []*storagepb.TxnOp{
				{Op: &storagepb.TxnOp_Put{Put: &storagepb.Put{Key: []byte("txn"), Value: []byte("then")}}},
				{Op: &storagepb.TxnOp_Range{Range: &storagepb.TxnRange{Key: []byte("a"), RangeEnd: []byte("z")}}},
			},
			Failure: []*storagepb.TxnOp{
				{Op: &storagepb.TxnOp_DeleteRange{DeleteRange: &storagepb.DeleteRange{Key: []byte("b"), PrevKv: true}}},
				{Op: &storagepb.TxnOp_Put{Put: &storagepb.Put{Key: []byte("txn"), Value: []byte("else")}}},
			},
		})
	}
	g.add(as(3, 1, 0, txn(4)), as(3, 2, 1, txn(99)))
	g.add(as(3, 1, 0, txn(4))) // refused: acknowledged
}

func goldenCatalog(g *goldenLog) {
	catalog := cmd(storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG, &storagepb.CreateCatalog{Name: "c", WallTimeMs: 1})
	schema := func(name string) *storagepb.Command {
		return cmd(storagepb.CommandKind_COMMAND_KIND_CREATE_SCHEMA, &storagepb.CreateSchema{CatalogName: "c", SchemaName: name, WallTimeMs: 2})
	}
	g.add(
		catalog, catalog, // the second one is refused
		cmd(storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG, &storagepb.CreateCatalog{Name: "gone", IfNotExists: true, WallTimeMs: 1}),
		cmd(storagepb.CommandKind_COMMAND_KIND_DROP_CATALOG, &storagepb.DropCatalog{Name: "gone"}),
		schema("s"), schema("gone"), schema("s"),
		cmd(storagepb.CommandKind_COMMAND_KIND_DROP_SCHEMA, &storagepb.DropSchema{CatalogName: "c", SchemaName: "gone"}),
		cmd(storagepb.CommandKind_COMMAND_KIND_DROP_CATALOG, &storagepb.DropCatalog{Name: "c"}), // refused: not empty
	)
}

func goldenNode(id, incarnation uint64) *storagepb.Command {
	return cmd(storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, &storagepb.RegisterNode{
		Peer: &metasrvpb.Peer{Id: id, Addr: "10.0.0.1:4001"}, Incarnation: incarnation, WallTimeMs: 3,
		Info: &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, RegistrationNonce: id, Labels: map[string]string{"zone": "z1", "rack": "r"}},
	})
}

func goldenName(table string) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: table}
}

func goldenSchema(columns ...string) *metasrvpb.TableSchema {
	schema := &metasrvpb.TableSchema{Options: map[string]string{"ttl": "7d", "engine": "mito"}}
	for _, name := range columns {
		schema.Columns = append(schema.Columns, &metasrvpb.Column{Name: name, Type: metasrvpb.DataType_DATA_TYPE_STRING})
	}
	return schema
}

// goldenCreate creates a table of two regions with two replicas each, on the nodes 1 and 2.
func goldenCreate(table string, token, incarnation uint64) *storagepb.Command {
	region := &storagepb.PlannedRegion{Replicas: []*storagepb.PlannedReplica{
		{NodeId: 1, Incarnation: incarnation}, {NodeId: 2, Incarnation: 2},
	}}
	return cmd(storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE, &storagepb.CreateTable{
		Name: goldenName(table), Schema: goldenSchema("host", "ts"), TableInfo: []byte("opaque"), Regions: []*storagepb.PlannedRegion{region, region},
		PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: 2}}},
		CreationToken: token, CreationTimeoutMs: 60_000, WallTimeMs: 4,
	})
}

func goldenTables(g *goldenLog) {
	g.add(goldenNode(1, 0), goldenNode(2, 0), goldenNode(2, 2), goldenNode(2, 9)) // the last one is refused
	g.add(
		as(1, 2, 1, goldenCreate("t", 11, 1)),              // 1024
		as(1, 3, 1, goldenCreate("u", 12, 7)),              // refused: another incarnation
		as(1, 3, 2, goldenCreate("u", 12, 1)),              // 1025, under the same id
		goldenCreate("t", 13, 1), goldenCreate("v", 14, 1), // the first is refused, for the table exists; the second is 1026
	)
	commit := func(table, token, firstReplica uint64) *storagepb.Command {
		c := &storagepb.CommitTable{TableId: table, CreationToken: token, Schema: goldenSchema("host", "ts", "usage")}
		for i := range uint64(4) {
			node := i%2 + 1
			c.Replicas = append(c.Replicas, &storagepb.CommittedReplica{
				RegionId: table<<32 | i/2, ReplicaId: firstReplica + i, NodeId: node, Incarnation: node,
			})
		}
		return cmd(storagepb.CommandKind_COMMAND_KIND_COMMIT_TABLE, c)
	}
	g.add(commit(1024, 99, 1), commit(1024, 11, 2), commit(1024, 11, 1), commit(1025, 12, 5)) // two refused, two done
	alter := cmd(storagepb.CommandKind_COMMAND_KIND_ALTER_TABLE,
		&storagepb.AlterTable{TableId: 1024, ExpectedSchemaVersion: 2, Schema: goldenSchema("host", "ts", "usage", "more")})
	rename := func(from, to string) *storagepb.Command {
		return cmd(storagepb.CommandKind_COMMAND_KIND_RENAME_TABLE, &storagepb.RenameTable{Name: goldenName(from), NewTableName: to})
	}
	g.add(alter, alter, rename("t", "cpu"), rename("t", "cpu"), rename("cpu", "u"))
	abort := cmd(storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE, &storagepb.AbortTable{TableId: 1026, CreationToken: 14, Reason: "nobody committed it"})
	drop := cmd(storagepb.CommandKind_COMMAND_KIND_DROP_TABLE, &storagepb.DropTable{Name: goldenName("u")})
	g.add(planned(2, abort), abort, drop, drop)
	confirm := func(node uint64, replicas ...*storagepb.DroppedReplica) *storagepb.Command {
		return cmd(storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED, &storagepb.ConfirmDropped{NodeId: node, Incarnation: node, Replicas: replicas})
	}
	replica := func(region, id uint64) *storagepb.DroppedReplica {
		return &storagepb.DroppedReplica{RegionId: region, ReplicaId: id}
	}
	const u = uint64(1025) << 32
	g.add(confirm(1, replica(u, 5), replica(u|1, 7)), confirm(2, replica(u, 6), replica(u|1, 8))) // u is gone
	g.add(confirm(1, replica(uint64(1026)<<32, 9)))                                               // v not yet
}

// goldenRegions has what came with version 2.
func goldenRegions(g *goldenLog) {
	node := func(id uint64, storage string) *storagepb.Command { // keeps leases
		return cmd(storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, &storagepb.RegisterNode{
			Peer: &metasrvpb.Peer{Id: id, Addr: "10.0.0.2:4001"}, WallTimeMs: 6,
			Info: &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, StorageUuid: storage, KeepsLeases: true},
		})
	}
	// 11 has incarnation 3, 12 has 4 and 5, 13 has 6, with its third storage.
	g.add(node(11, "s11"), node(12, "s12"), node(12, "s12"), node(13, "x"), node(13, "y"), node(13, ""), node(13, "s13"))
	region := &storagepb.PlannedRegion{Replicas: []*storagepb.PlannedReplica{
		{NodeId: 11, Incarnation: 3}, {NodeId: 12, Incarnation: 5}, {NodeId: 13, Incarnation: 9},
	}}
	create := &storagepb.CreateTable{
		Name: goldenName("regions"), Regions: []*storagepb.PlannedRegion{region, region}, CreationToken: 15, CreationTimeoutMs: 60_000,
		Commit: true, Replicas: 3, UncleanFailover: true,
	}
	g.add(cmd(storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE, create)) // 1027, replicas 13 to 18
	change := func(conf, epoch uint64, c *storagepb.RegionChange) *storagepb.RegionChange {
		c.RegionId, c.ConfVersion, c.LeaderEpoch = 1027<<32, conf, epoch
		return c
	}
	demote := &storagepb.RegionChange_BeginDemotion{BeginDemotion: &storagepb.BeginDemotion{}}
	elect := func(id uint64, unclean bool, failed ...uint64) *storagepb.RegionChange_Elect {
		return &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: id, FailedReplicaIds: failed, Unclean: unclean}}
	}
	inSync := func(incarnation uint64, ids ...uint64) *storagepb.RegionChange_SetInSync {
		return &storagepb.RegionChange_SetInSync{SetInSync: &storagepb.SetInSync{ReplicaIds: ids, Incarnation: incarnation}}
	}
	g.add(
		changes(change(1, 1, &storagepb.RegionChange{Change: demote}), change(1, 1, &storagepb.RegionChange{Change: demote})), // the second is stale
		changes(change(2, 1, &storagepb.RegionChange{Change: elect(14, false, 13)})),
		changes(change(3, 2, &storagepb.RegionChange{Change: inSync(5, 13, 14, 15)}), change(4, 2, &storagepb.RegionChange{Change: inSync(0, 14)})),
		changes(change(5, 2, &storagepb.RegionChange{Change: elect(15, false)}), change(5, 2, &storagepb.RegionChange{Change: elect(15, true, 14)})), // the first is refused
		changes(change(6, 3, &storagepb.RegionChange{Change: &storagepb.RegionChange_RemoveReplica{RemoveReplica: &storagepb.RemoveReplica{ReplicaId: 13}}})),
		changes(change(7, 3, &storagepb.RegionChange{Change: &storagepb.RegionChange_AddReplica{AddReplica: &storagepb.AddReplica{NodeId: 11, Incarnation: 3}}})),
		changes(&storagepb.RegionChange{RegionId: 1026 << 32, LeaderEpoch: 1, ConfVersion: 1, Change: demote}), // refused: not PUBLIC
	)
	g.add(node(12, "other"), changes(change(8, 3, &storagepb.RegionChange{Change: elect(14, true, 15)}))) // refused: lost
}

func goldenProcedures(g *goldenLog) {
	const region = uint64(1027)<<32 | 1 // replica 16 leads on node 11, 18 is on node 13
	create := func(spec *storagepb.ProcedureSpec, step metasrvpb.ProcedureStep, target uint64) *storagepb.Command {
		return cmd(storagepb.CommandKind_COMMAND_KIND_CREATE_PROCEDURE, &storagepb.CreateProcedure{
			Spec: spec, Step: step, StepTimeoutMs: 60_000, TargetReplicaId: target, Total: 2, WallTimeMs: 7,
		})
	}
	step := func(id, version uint64, state metasrvpb.ProcedureState, step metasrvpb.ProcedureStep, change *storagepb.RegionChange) *storagepb.Command {
		return planned(2, cmd(storagepb.CommandKind_COMMAND_KIND_STEP_PROCEDURE, &storagepb.StepProcedure{
			Id: id, Version: version, State: state, Step: step, StepTimeoutMs: 30_000, Change: change, WallTimeMs: 8,
		}))
	}
	change := func(conf, epoch uint64, c *storagepb.RegionChange) *storagepb.RegionChange {
		c.RegionId, c.ConfVersion, c.LeaderEpoch = region, conf, epoch
		return c
	}
	demote := &storagepb.RegionChange{Change: &storagepb.RegionChange_BeginDemotion{BeginDemotion: &storagepb.BeginDemotion{}}}
	elect := &storagepb.RegionChange{Change: &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: 18}}}
	const (
		running, rolling, done = metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING, metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK,
			metasrvpb.ProcedureState_PROCEDURE_STATE_DONE
		cancelled              = metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED
		demoting, await, moves = metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE, metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION,
			metasrvpb.ProcedureStep_PROCEDURE_STEP_MOVE
	)
	transfer := &storagepb.ProcedureSpec{
		Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER, RegionId: region, ReplicaId: 16, NodeId: 11, TargetNodeId: 13, Reason: "golden",
	}
	g.add(
		create(transfer, demoting, 18),                           // 1
		create(transfer, demoting, 18),                           // refused: the region is locked
		create(&storagepb.ProcedureSpec{RegionId: region}, 0, 0), // refused: of no kind
		step(1, 1, running, await, change(1, 1, demote)),
		step(1, 1, running, await, nil),                 // refused: another version
		step(1, 2, running, await, change(1, 1, elect)), // refused: the region has changed
	)
	g.add(step(1, 2, done, await, change(2, 1, elect)), step(1, 3, done, await, nil)) // the second is refused: ended
	drain := &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 13}
	part := &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA, RegionId: region, ReplicaId: 17, ParentId: 2}
	cancel := cmd(storagepb.CommandKind_COMMAND_KIND_CANCEL_PROCEDURE, &storagepb.CancelProcedure{Id: 2, Reason: "no", WallTimeMs: 9})
	g.add(create(drain, moves, 0), create(part, demoting, 0), cancel, cancel, create(part, demoting, 0)) // 2, 3 is a part of it; the last is refused
	g.add(step(3, 2, cancelled, moves, nil), step(2, 2, cancelled, moves, nil), cancel)                  // the last is refused: ended
	g.add(
		create(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE, NodeId: 12}, moves, 0),                  // 4
		create(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS, TableId: 1027, Replicas: 2}, moves, 0), // 5
		step(4, 1, done, moves, nil),
		step(5, 1, rolling, moves, nil),
		step(5, 2, cancelled, moves, nil),
		cmd(storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, &storagepb.RegisterNode{ // refused: removed
			Peer: &metasrvpb.Peer{Id: 12, Addr: "10.0.0.2:4001"}, Info: &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE},
		}),
		create(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 11}, moves, 0), // 6
		step(6, 1, done, moves, nil),
		changes(change(3, 2, &storagepb.RegionChange{Change: &storagepb.RegionChange_AddReplica{AddReplica: &storagepb.AddReplica{NodeId: 11, Incarnation: 3}}})), // refused: drained
		cmd(storagepb.CommandKind_COMMAND_KIND_SET_NODE_STATE, &storagepb.SetNodeState{NodeId: 11}),
		cmd(storagepb.CommandKind_COMMAND_KIND_SET_NODE_STATE, &storagepb.SetNodeState{NodeId: 99}), // refused
	)
}

func changes(list ...*storagepb.RegionChange) *storagepb.Command {
	return cmd(storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, &storagepb.ChangeRegions{Changes: list})
}

func goldenLocks(g *goldenLog) {
	x, y := []byte("x"), []byte("y")
	lock, election := storagepb.ClaimKind_CLAIM_KIND_LOCK, storagepb.ClaimKind_CLAIM_KIND_ELECTION
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_OPEN_HOLDER, &storagepb.OpenHolder{TtlMs: 20_000, Name: "a"}), // 1
		cmd(storagepb.CommandKind_COMMAND_KIND_OPEN_HOLDER, &storagepb.OpenHolder{TtlMs: 60_000}),            // 2
		cmd(storagepb.CommandKind_COMMAND_KIND_OPEN_HOLDER, &storagepb.OpenHolder{TtlMs: 1}),                 // refused
	)
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: lock, Name: x, Holder: 1}),
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: lock, Name: x, Holder: 2}),                   // waits
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: lock, Name: x, TtlMs: 20_000}),               // 3 waits
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: lock, Name: x, Holder: 2, NoWait: true}),     // waits already
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: lock, Name: x, TtlMs: 20_000, NoWait: true}), // refused
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: election, Name: y, Holder: 1, Value: []byte("1")}),
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: election, Name: y, Holder: 2, Value: []byte("2")}),
		cmd(storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{Kind: lock, Name: x, Holder: 9}), // refused
	)
	g.add(
		cmd(storagepb.CommandKind_COMMAND_KIND_PROCLAIM, &storagepb.Proclaim{Kind: election, Name: y, Holder: 2, Value: []byte("3")}), // refused
		cmd(storagepb.CommandKind_COMMAND_KIND_WITHDRAW, &storagepb.Withdraw{Kind: lock, Name: x, Holder: 1}),                         // 2 has it
		cmd(storagepb.CommandKind_COMMAND_KIND_WITHDRAW, &storagepb.Withdraw{Kind: lock, Name: x, Holder: 3}),                         // 3 is gone
		cmd(storagepb.CommandKind_COMMAND_KIND_KEEP_HOLDER, &storagepb.KeepHolder{Holder: 2}),
		cmd(storagepb.CommandKind_COMMAND_KIND_KEEP_HOLDER, &storagepb.KeepHolder{Holder: 3}), // refused
	)
	use := g.entries[len(g.entries)-3].entry.LeaderTimeMs
	expire := &storagepb.ExpireHolders{Holders: []*storagepb.HolderUse{{Holder: 1, RenewedAtMs: use}, {Holder: 2, RenewedAtMs: use}}}
	g.add(planned(2, cmd(storagepb.CommandKind_COMMAND_KIND_EXPIRE_HOLDERS, expire))) // nobody: too early
	g.now += 30_000
	g.add(planned(2, cmd(storagepb.CommandKind_COMMAND_KIND_EXPIRE_HOLDERS, expire)))              // 1: 2 is elected
	g.add(cmd(storagepb.CommandKind_COMMAND_KIND_CLOSE_HOLDER, &storagepb.CloseHolder{Holder: 1})) // is gone already
	g.add(cmd(storagepb.CommandKind_COMMAND_KIND_CLOSE_HOLDER, &storagepb.CloseHolder{Holder: 2}))
}

func goldenConfig(g *goldenLog) {
	configure := func(c *storagepb.ConfigureCluster) *storagepb.Command {
		return cmd(storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, c)
	}
	begin := func(reason string, at int64) *storagepb.Command {
		return configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_BeginMaintenance{
			BeginMaintenance: &storagepb.MaintenanceMode{Reason: reason, SinceMs: at},
		}})
	}
	percent := func(p uint32) *storagepb.Command {
		return configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_MaxFailedPercent{MaxFailedPercent: p}})
	}
	g.add(begin("disks", 5), begin("", 6), percent(70), percent(0), begin("more disks", 7))
	g.add(configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_EndMaintenance{EndMaintenance: &storagepb.EndMaintenance{}}}), configure(&storagepb.ConfigureCluster{}))
	lease := func(ms uint64) *storagepb.Command {
		return configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_LeaseMs{LeaseMs: ms}})
	}
	settle := func(changes uint64) *storagepb.Command {
		return configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_SettleLease{SettleLease: &storagepb.SettleLease{LeaseChanges: changes}}})
	}
	found := func(leaseMs, repairAfterMs uint64) *storagepb.Command {
		return configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_Found{
			Found: &storagepb.FoundConfig{LeaseMs: leaseMs, RepairAfterMs: repairAfterMs},
		}})
	}
	g.add(planned(2, found(0, 1)), planned(2, found(3000, 600_000)), planned(2, found(4000, 5)), lease(1000), lease(1000), lease(2000), lease(1))
	g.add(planned(2, settle(2)), planned(2, settle(3)), lease(5000), lease(3_600_001))
	g.add(configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_RepairAfterMs{RepairAfterMs: 0}}))
}

func goldenGroups(g *goldenLog) {
	node := func(id uint64, storage, group string) *storagepb.Command {
		return cmd(storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, &storagepb.RegisterNode{
			Peer: &metasrvpb.Peer{Id: id, Addr: "10.0.0.3:4001"}, WallTimeMs: 7,
			Info: &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, StorageUuid: storage, KeepsLeases: true, Group: group},
		})
	}
	change := func(version uint64, c *storagepb.ChangeGroup) *storagepb.Command {
		c.Name, c.Version = "g", version
		return cmd(storagepb.CommandKind_COMMAND_KIND_CHANGE_GROUP, c)
	}
	elect := func(version uint64, e *storagepb.ElectWriter) *storagepb.Command {
		return change(version, &storagepb.ChangeGroup{Change: &storagepb.ChangeGroup_Elect{Elect: e}})
	}
	handOver := func(version, node uint64) *storagepb.Command {
		return change(version, &storagepb.ChangeGroup{Change: &storagepb.ChangeGroup_HandOver{HandOver: &storagepb.HandOverGroup{NodeId: node}}})
	}
	inSync := func(version, incarnation uint64, nodes ...uint64) *storagepb.Command {
		return change(version, &storagepb.ChangeGroup{Change: &storagepb.ChangeGroup_SetInSync{
			SetInSync: &storagepb.SetGroupInSync{NodeIds: nodes, Incarnation: incarnation},
		}})
	}
	g.add(elect(1, &storagepb.ElectWriter{NodeId: 21})) // refused: no such group
	g.add(node(21, "a", "g"), node(22, "b", "g"), node(23, "c", "g"))
	first := uint64(11) // incarnation of 21
	g.add(
		elect(3, &storagepb.ElectWriter{NodeId: 21, Incarnation: first}),
		elect(3, &storagepb.ElectWriter{NodeId: 22}), // refused: stale
		inSync(4, first, 21, 22, 23), inSync(5, first, 21, 22, 23), handOver(5, 22), handOver(6, 22),
		elect(6, &storagepb.ElectWriter{NodeId: 22}), elect(7, &storagepb.ElectWriter{NodeId: 23, Failed: true}),
		elect(8, &storagepb.ElectWriter{NodeId: 22}), // refused: not in sync
		elect(8, &storagepb.ElectWriter{NodeId: 22, Unclean: true}),
	)
	g.add(node(22, "other", "g"), node(21, "a", "h"), node(21, "a", ""), node(23, "c", "h"), inSync(11, 99, 22)) // the last one is refused
}

func goldenLater(g *goldenLog) {
	g.term = 3
	g.add(cmd(storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED, &storagepb.LeaderEstablished{Term: 3, Member: member("b"), ProposedClusterId: 78}))
	lastUse := g.entries[8].entry.LeaderTimeMs
	stale := &storagepb.ExpireSessions{Sessions: []*storagepb.SessionUse{{Session: 3, LastUsedMs: lastUse}}}
	g.add(planned(2, cmd(storagepb.CommandKind_COMMAND_KIND_EXPIRE_SESSIONS, stale))) // refused: another term
	g.add(planned(3, cmd(storagepb.CommandKind_COMMAND_KIND_EXPIRE_SESSIONS, stale))) // forgets nothing: too early
	g.now += 30_000
	g.add(as(1, 4, 3, goldenPut("once", "2")))
	g.now += 40_000
	all := &storagepb.ExpireSessions{}
	for session := range uint64(4) {
		for _, e := range g.entries {
			all.Sessions = append(all.Sessions, &storagepb.SessionUse{Session: session, LastUsedMs: e.entry.LeaderTimeMs})
		}
	}
	g.add(planned(3, cmd(storagepb.CommandKind_COMMAND_KIND_EXPIRE_SESSIONS, all))) // forgets session 3
	g.add(as(3, 3, 2, goldenPut("once", "3")), as(1, 5, 4, goldenPut("once", "4")))
}
