package router_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

const (
	createTable    = storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE
	commitTable    = storagepb.CommandKind_COMMAND_KIND_COMMIT_TABLE
	abortTable     = storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE
	dropTable      = storagepb.CommandKind_COMMAND_KIND_DROP_TABLE
	confirmDropped = storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED
	renameTable    = storagepb.CommandKind_COMMAND_KIND_RENAME_TABLE
	alterTable     = storagepb.CommandKind_COMMAND_KIND_ALTER_TABLE
	register       = storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE

	creating = metasrvpb.TableState_TABLE_STATE_CREATING
	public   = metasrvpb.TableState_TABLE_STATE_PUBLIC
	aborting = metasrvpb.TableState_TABLE_STATE_ABORTING
	dropping = metasrvpb.TableState_TABLE_STATE_DROPPING
)

// nodes stands in for package heartbeat, which no domain package may import: a node's record is its
// incarnation, the generation of its storage, which the command gives as its wall time, and whether it keeps no leases.
// Registration without an address removes the node.
type nodes struct{}

func (nodes) Kinds() []storagepb.CommandKind { return []storagepb.CommandKind{register} }

func (nodes) Apply(tx state.Tx, _ storagepb.CommandKind, payload []byte) (proto.Message, error) {
	cmd := &storagepb.RegisterNode{}
	if err := state.Decode(payload, cmd); err != nil {
		return nil, err
	}
	if cmd.Peer.Addr == "" {
		tx.Delete(nodeKey(cmd.Peer.Id))
		return nil, nil
	}
	tx.Put(nodeKey(cmd.Peer.Id), state.Encode(&storagepb.NodeRecord{
		Incarnation: state.Next(tx, "seq/incarnation", 1), StorageGeneration: uint64(cmd.WallTimeMs), Legacy: cmd.Legacy,
	}))
	return nil, nil
}

func nodeKey(id uint64) string { return fmt.Sprintf("node/%016x", id) }

func registered(v state.View, id metasrv.NodeID) (metasrv.Registration, bool) {
	value, ok := v.Get(nodeKey(uint64(id)))
	if !ok {
		return metasrv.Registration{}, false
	}
	node := &storagepb.NodeRecord{}
	if err := state.Decode(value, node); err != nil {
		panic(err)
	}
	return metasrv.Registration{
		Incarnation: metasrv.Incarnation(node.Incarnation), StorageGeneration: node.StorageGeneration, KeepsLeases: !node.Legacy,
	}, true
}

// fataler is what the fixture needs of a test; *rapid.T has it too.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// cluster is a state machine with the schema c.s and the nodes 1 to 4 in it.
type cluster struct {
	*memory.Node
	t fataler
}

func newCluster(t testing.TB) *cluster { return clusterFor(t) }

func clusterFor(t fataler) *cluster {
	c := &cluster{memory.New(catalog.NewApplier(), router.NewApplier(registered), nodes{}), t}
	c.must(storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG, &storagepb.CreateCatalog{Name: "c"})
	c.must(storagepb.CommandKind_COMMAND_KIND_CREATE_SCHEMA, &storagepb.CreateSchema{CatalogName: "c", SchemaName: "s"})
	for id := range uint64(4) {
		c.register(id + 1)
	}
	return c
}

func (c *cluster) register(id uint64) {
	c.must(register, &storagepb.RegisterNode{Peer: &metasrvpb.Peer{Id: id, Addr: "here"}})
}

// registerStorage has a node come back with its storage of a generation.
func (c *cluster) registerStorage(id, generation uint64) {
	c.must(register, &storagepb.RegisterNode{Peer: &metasrvpb.Peer{Id: id, Addr: "here"}, WallTimeMs: int64(generation)})
}

// registerLegacy has a node come back that keeps no leases.
func (c *cluster) registerLegacy(id uint64) {
	c.must(register, &storagepb.RegisterNode{Peer: &metasrvpb.Peer{Id: id, Addr: "here"}, Legacy: true})
}

func (c *cluster) unregister(id uint64) {
	c.must(register, &storagepb.RegisterNode{Peer: &metasrvpb.Peer{Id: id}})
}

func (c *cluster) incarnation(id uint64) uint64 {
	r, _ := registered(c.View(), metasrv.NodeID(id))
	return uint64(r.Incarnation)
}

func (c *cluster) propose(kind storagepb.CommandKind, payload proto.Message) (router.Record, error) {
	r, err := c.Propose(context.Background(), state.Proposal{Kind: kind, Payload: payload})
	if err != nil {
		return router.Record{}, err
	}
	switch kind {
	case createTable, commitTable, abortTable, dropTable, confirmDropped, renameTable, alterTable:
	default:
		return router.Record{}, nil
	}
	result := &storagepb.TableResult{}
	if err := state.Decode(r.Payload, result); err != nil {
		c.t.Fatalf("%v", err)
	}
	return router.Record{Table: result.Table, Route: result.Route}, nil
}

func (c *cluster) must(kind storagepb.CommandKind, payload proto.Message) router.Record {
	c.t.Helper()
	record, err := c.propose(kind, payload)
	if err != nil {
		c.t.Fatalf("%s %v: %v", kind, payload, err)
	}
	return record
}

// refuse expects an error, and that nothing changed.
func (c *cluster) refuse(want error, kind storagepb.CommandKind, payload proto.Message) *metasrv.Error {
	c.t.Helper()
	before := c.View().Revision()
	_, err := c.propose(kind, payload)
	if !errors.Is(err, want) {
		c.t.Fatalf("%s %v = %v, want %v", kind, payload, err, want)
	}
	if after := c.View().Revision(); after != before {
		c.t.Errorf("%s %v was refused, but changed the state", kind, payload)
	}
	e, _ := errors.AsType[*metasrv.Error](err)
	return e
}

// plan places two replicas of each region, on the given nodes in turn.
func (c *cluster) plan(table string, regions int, on ...uint64) *storagepb.CreateTable {
	cmd := &storagepb.CreateTable{
		Name:   tableName(table),
		Schema: schema(),
		PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
			Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: uint32(regions)}}},
		CreationToken:     7000 + uint64(catalog.NextTableID(c.View())),
		CreationTimeoutMs: 1000,
	}
	for i := range regions {
		region := &storagepb.PlannedRegion{}
		for j := range min(2, len(on)) {
			node := on[(i+j)%len(on)]
			region.Replicas = append(region.Replicas, &storagepb.PlannedReplica{NodeId: node, Incarnation: c.incarnation(node)})
		}
		cmd.Regions = append(cmd.Regions, region)
	}
	return cmd
}

func (c *cluster) create(table string, regions int, on ...uint64) router.Record {
	c.t.Helper()
	return c.must(createTable, c.plan(table, regions, on...))
}

func (c *cluster) public(table string, regions int, on ...uint64) router.Record {
	c.t.Helper()
	return c.must(commitTable, commitOf(c.create(table, regions, on...)))
}

// commitOf says that all replicas were created as planned.
func commitOf(r router.Record) *storagepb.CommitTable {
	cmd := &storagepb.CommitTable{TableId: r.Table.Id, CreationToken: r.Table.CreationToken}
	for _, region := range r.Route.Regions {
		for _, replica := range region.Replicas {
			cmd.Replicas = append(cmd.Replicas, &storagepb.CommittedReplica{
				RegionId: region.RegionId, ReplicaId: replica.ReplicaId, NodeId: replica.NodeId, Incarnation: replica.PlannedIncarnation,
			})
		}
	}
	return cmd
}

func abortOf(r router.Record) *storagepb.AbortTable {
	return &storagepb.AbortTable{TableId: r.Table.Id, CreationToken: r.Table.CreationToken, Reason: "a test"}
}

func dropOf(table string) *storagepb.DropTable { return &storagepb.DropTable{Name: tableName(table)} }

// confirmOf says that a node has dropped all its replicas of a table.
func (c *cluster) confirmOf(r router.Record, node uint64) *storagepb.ConfirmDropped {
	cmd := &storagepb.ConfirmDropped{NodeId: node, Incarnation: c.incarnation(node)}
	for _, region := range r.Route.Regions {
		for _, replica := range region.Replicas {
			if replica.NodeId == node {
				cmd.Replicas = append(cmd.Replicas, &storagepb.DroppedReplica{RegionId: region.RegionId, ReplicaId: replica.ReplicaId})
			}
		}
	}
	return cmd
}

func tableName(table string) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: table}
}

func named(table string) metasrv.TableName {
	return metasrv.TableName{Catalog: "c", Schema: "s", Table: table}
}

func schema() *metasrvpb.TableSchema {
	return &metasrvpb.TableSchema{
		Columns: []*metasrvpb.Column{
			{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING},
			{Name: "ts", Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP},
		},
		PrimaryKey: []string{"host", "ts"},
		TimeIndex:  "ts",
	}
}
