package main

import metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

const fakeCreated = 1_767_323_045_000 // 2026-01-02 03:04:05 UTC

var (
	fakeCatalog = &metasrvpb.CatalogInfo{Name: "greptime", CreatedAtMs: fakeCreated}
	fakeSchema  = &metasrvpb.SchemaInfo{CatalogName: "greptime", SchemaName: "public", CreatedAtMs: fakeCreated}
)

func fakeNodes() []*metasrvpb.Node {
	datanode := metasrvpb.NodeRole_NODE_ROLE_DATANODE
	return []*metasrvpb.Node{
		{
			Peer:  &metasrvpb.Peer{Id: 1, Addr: "10.0.1.1:4001"},
			Info:  &metasrvpb.NodeInfo{Role: datanode, Version: "v0.1.0", Labels: map[string]string{"zone": "a", "rack": "7"}},
			State: metasrvpb.NodeState_NODE_STATE_LIVE, Incarnation: 4, LastHeartbeatAgeMs: 1_300,
			Stat:     &metasrvpb.NodeStat{CpuUsage: 0.42, MemoryUsedBytes: 3 << 29, DiskUsedBytes: 2 << 30},
			Replicas: 5, RegionLeaders: 3,
		},
		{
			Peer:  &metasrvpb.Peer{Id: 2, Addr: "10.0.1.2:4001"},
			Info:  &metasrvpb.NodeInfo{Role: datanode, Version: "v0.1.0"},
			State: metasrvpb.NodeState_NODE_STATE_DOWN, Incarnation: 2, LastHeartbeatAgeMs: 3_700_000,
			Stat: &metasrvpb.NodeStat{}, Replicas: 5, RegionLeaders: 2,
		},
		{
			Peer:  &metasrvpb.Peer{Id: 9, Addr: "10.0.2.1:4002"},
			Info:  &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_FRONTEND, Version: "v0.1.0"},
			State: metasrvpb.NodeState_NODE_STATE_UNKNOWN, Incarnation: 3,
		},
	}
}

func text(s string) *metasrvpb.RangeBound {
	return &metasrvpb.RangeBound{Values: []*metasrvpb.Value{{Kind: &metasrvpb.Value_StringValue{StringValue: s}}}}
}

func maxValue() *metasrvpb.RangeBound {
	return &metasrvpb.RangeBound{Values: []*metasrvpb.Value{{Kind: &metasrvpb.Value_MaxValue{MaxValue: true}}}}
}

func fakeTables() []*metasrvpb.Table {
	name := func(table string) *metasrvpb.TableName {
		return &metasrvpb.TableName{CatalogName: "greptime", SchemaName: "public", TableName: table}
	}
	return []*metasrvpb.Table{
		{
			Id: 1024, TableName: name("cpu"), State: metasrvpb.TableState_TABLE_STATE_PUBLIC,
			CreatedAtMs: fakeCreated, SchemaVersion: 1,
			Schema: &metasrvpb.TableSchema{
				Columns: []*metasrvpb.Column{
					{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING, NativeType: "VARCHAR(64)"},
					{Name: "ts", Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP},
					{Name: "usage", Type: metasrvpb.DataType_DATA_TYPE_FLOAT64, Nullable: true, Comment: "share of a core"},
				},
				PrimaryKey: []string{"host", "ts"}, TimeIndex: "ts", Options: map[string]string{"ttl": "7d"},
			},
			PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: &metasrvpb.RangeRule{
				Columns: []string{"host"}, Bounds: []*metasrvpb.RangeBound{text("h"), text("p"), maxValue()},
			}}},
		},
		{
			Id: 1025, TableName: name("disk"), State: metasrvpb.TableState_TABLE_STATE_PUBLIC,
			CreatedAtMs: fakeCreated, SchemaVersion: 3,
			PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{
				Columns: []string{"device"}, Partitions: 4,
			}}},
		},
		{
			Id: 1026, TableName: name("events"), State: metasrvpb.TableState_TABLE_STATE_CREATING,
			CreatedAtMs: fakeCreated, SchemaVersion: 1,
		},
	}
}

func fakeRegions() []*metasrvpb.RegionInfo {
	cpu := fakeTables()[0].TableName
	return []*metasrvpb.RegionInfo{
		{
			RegionId: 1024 << 32, TableName: cpu, TableState: metasrvpb.TableState_TABLE_STATE_PUBLIC,
			LeaderEpoch: 1, ConfVersion: 2,
			Replicas: []*metasrvpb.Replica{
				{
					ReplicaId: 1, Peer: fakeNodes()[0].Peer, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, InSync: true,
					Stat: &metasrvpb.RegionStat{ApproximateRows: 12_345, ApproximateSize: 4 << 20},
				},
				{ReplicaId: 2, Peer: fakeNodes()[1].Peer, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER},
			},
		},
		{
			RegionId: 1024<<32 | 1, PartitionNumber: 1, TableName: cpu,
			TableState: metasrvpb.TableState_TABLE_STATE_PUBLIC, LeaderEpoch: 2, ConfVersion: 5,
			Replicas: []*metasrvpb.Replica{
				{ReplicaId: 4, Peer: fakeNodes()[0].Peer, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER, InSync: true},
			},
		},
	}
}
