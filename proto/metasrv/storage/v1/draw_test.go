package storagepb_test

import (
	"pgregory.net/rapid"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

var number = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Max(300), rapid.Uint64())

func drawPut(t *rapid.T) *storagepb.Put {
	return &storagepb.Put{
		Key:    rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "key"),
		Value:  rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"),
		PrevKv: rapid.Bool().Draw(t, "prev"),
	}
}

func drawResult(t *rapid.T) *storagepb.KvResult {
	return &storagepb.KvResult{Success: rapid.Bool().Draw(t, "success"), Deleted: rapid.Int64().Draw(t, "deleted")}
}

func drawPartition(t *rapid.T) *metasrvpb.Partition {
	if rapid.Bool().Draw(t, "no partition") {
		return nil
	}
	return &metasrvpb.Partition{ColumnList: rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 9), 0, 3).Draw(t, "columns")}
}

func drawSchema(t *rapid.T) *metasrvpb.TableSchema {
	if rapid.Bool().Draw(t, "no schema") {
		return nil
	}
	m := &metasrvpb.TableSchema{PrimaryKey: drawTexts(t), TimeIndex: rapid.String().Draw(t, "time index")}
	for range rapid.IntRange(0, 3).Draw(t, "columns") {
		m.Columns = append(m.Columns, &metasrvpb.Column{
			Name: rapid.String().Draw(t, "column"), Type: metasrvpb.DataType(rapid.Int32().Draw(t, "type")), Nullable: rapid.Bool().Draw(t, "nullable"),
			Comment: rapid.String().Draw(t, "comment"), NativeType: rapid.String().Draw(t, "native type"),
		})
	}
	if rapid.Bool().Draw(t, "has options") {
		m.Options = map[string]string{"x": "1", "y": "2", "z": "3"}
	}
	return m
}

func drawTexts(t *rapid.T) []string { return rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "texts") }

func drawName(t *rapid.T) *metasrvpb.TableName {
	if rapid.Bool().Draw(t, "no name") {
		return nil
	}
	return &metasrvpb.TableName{CatalogName: rapid.String().Draw(t, "catalog"), SchemaName: rapid.String().Draw(t, "schema"), TableName: rapid.String().Draw(t, "name")}
}

func drawRule(t *rapid.T) *metasrvpb.PartitionRule {
	switch rapid.IntRange(0, 3).Draw(t, "rule") {
	case 0:
		return nil
	case 1:
		return &metasrvpb.PartitionRule{}
	case 2:
		return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: &metasrvpb.RangeRule{Columns: drawTexts(t)}}}
	}
	return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{
		Columns: drawTexts(t), Partitions: uint32(number.Draw(t, "partitions")),
	}}}
}

func drawTable(t *rapid.T) *storagepb.TableRecord {
	return &storagepb.TableRecord{
		Id: number.Draw(t, "id"), Name: drawName(t), State: metasrvpb.TableState(rapid.Int32().Draw(t, "state")), Schema: drawSchema(t),
		SchemaVersion: number.Draw(t, "version"), PartitionRule: drawRule(t), TableInfo: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "info"),
		CreatedAtMs: rapid.Int64().Draw(t, "created"), CreationToken: number.Draw(t, "token"), CreationDeadlineMs: number.Draw(t, "deadline"),
		Reason: rapid.String().Draw(t, "reason"),
	}
}

func drawRoute(t *rapid.T) *storagepb.RouteRecord {
	m := &storagepb.RouteRecord{
		TableId: number.Draw(t, "table"), RouteVersion: number.Draw(t, "version"), Replicas: uint32(number.Draw(t, "wanted")),
		UncleanFailover: rapid.Bool().Draw(t, "unclean"), Storage: metasrvpb.StorageKind(rapid.Int32Range(-1, 3).Draw(t, "storage")),
	}
	for range rapid.IntRange(0, 5).Draw(t, "regions") {
		region := &storagepb.RegionRecord{
			RegionId: number.Draw(t, "region"), PartitionNumber: uint32(number.Draw(t, "partition")), Partition: drawPartition(t),
			LeaderEpoch: number.Draw(t, "epoch"), ConfVersion: number.Draw(t, "conf"), LeaderReplicaId: number.Draw(t, "leader"),
			Demoting: rapid.Bool().Draw(t, "demoting"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "replicas") {
			region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{
				ReplicaId: number.Draw(t, "replica"), NodeId: number.Draw(t, "node"), PlannedIncarnation: number.Draw(t, "incarnation"),
				InSync: rapid.Bool().Draw(t, "in sync"), Dropped: rapid.Bool().Draw(t, "dropped"),
				Learner: rapid.Bool().Draw(t, "learner"), StorageGeneration: number.Draw(t, "generation"),
			})
		}
		m.Regions = append(m.Regions, region)
	}
	return m
}

func drawCreation(t *rapid.T) *storagepb.CreateTable {
	m := &storagepb.CreateTable{
		Name: drawName(t), Schema: drawSchema(t), PartitionRule: drawRule(t), TableInfo: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "info"),
		CreationToken: number.Draw(t, "token"), CreationTimeoutMs: number.Draw(t, "timeout"),
		WallTimeMs: rapid.Int64().Draw(t, "time"), Commit: rapid.Bool().Draw(t, "commit"),
		Replicas: uint32(number.Draw(t, "wanted")), UncleanFailover: rapid.Bool().Draw(t, "unclean"),
	}
	for range rapid.IntRange(0, 5).Draw(t, "regions") {
		region := &storagepb.PlannedRegion{Partition: drawPartition(t)}
		for range rapid.IntRange(0, 4).Draw(t, "replicas") {
			region.Replicas = append(region.Replicas, &storagepb.PlannedReplica{
				NodeId: number.Draw(t, "node"), Incarnation: number.Draw(t, "incarnation"),
			})
		}
		m.Regions = append(m.Regions, region)
	}
	return m
}

func drawCommit(t *rapid.T) *storagepb.CommitTable {
	m := &storagepb.CommitTable{TableId: number.Draw(t, "table"), CreationToken: number.Draw(t, "token"), Schema: drawSchema(t)}
	for range rapid.IntRange(0, 5).Draw(t, "replicas") {
		m.Replicas = append(m.Replicas, &storagepb.CommittedReplica{
			RegionId: number.Draw(t, "region"), ReplicaId: number.Draw(t, "replica"),
			NodeId: number.Draw(t, "node"), Incarnation: number.Draw(t, "incarnation"),
		})
	}
	return m
}
