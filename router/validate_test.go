package router_test

import (
	"errors"
	"testing"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

func TestPlanRegions(t *testing.T) {
	opaque := &metasrvpb.Partition{ColumnList: [][]byte{[]byte("a")}, ValueList: [][]byte{[]byte("k1")}}
	tests := []struct {
		name    string
		change  func(*metasrvpb.CreateRequest)
		field   string // "" where the request is right
		regions int
	}{
		{"hash", func(*metasrvpb.CreateRequest) {}, "", 3},
		{"no rule", func(r *metasrvpb.CreateRequest) { r.PartitionRule = nil }, "", 1},
		{"early protocol", func(r *metasrvpb.CreateRequest) {
			r.PartitionRule, r.Schema = nil, nil
			r.Partitions = []*metasrvpb.Partition{opaque, opaque}
		}, "", 2},
		{"early protocol without partitions", func(r *metasrvpb.CreateRequest) { r.PartitionRule, r.Schema = nil, nil }, "", 1},
		{"no name", func(r *metasrvpb.CreateRequest) { r.TableName = nil }, "table_name.catalog_name", 0},
		{"slash in name", func(r *metasrvpb.CreateRequest) { r.TableName.TableName = "a/b" }, "table_name.table_name", 0},
		{"both kinds of partitions", func(r *metasrvpb.CreateRequest) { r.Partitions = []*metasrvpb.Partition{opaque} }, "partitions", 0},
		{"too many opaque partitions", func(r *metasrvpb.CreateRequest) {
			r.PartitionRule, r.Partitions = nil, make([]*metasrvpb.Partition, router.MaxRegions+1)
		}, "partitions", 0},
		{"long opaque partitions", func(r *metasrvpb.CreateRequest) {
			r.PartitionRule = nil
			r.Partitions = []*metasrvpb.Partition{{ValueList: [][]byte{make([]byte, router.MaxPartitionBytes+1)}}}
		}, "partitions", 0},
		{"rule without schema", func(r *metasrvpb.CreateRequest) { r.Schema = nil }, "schema", 0},
		{"bad schema", func(r *metasrvpb.CreateRequest) { r.Schema.TimeIndex = "x" }, "schema.time_index", 0},
		{"partition column unknown", func(r *metasrvpb.CreateRequest) { r.PartitionRule.GetHash().Columns[0] = "x" }, "partition_rule.hash.columns[0]", 0},
		{"too many partitions", func(r *metasrvpb.CreateRequest) { r.PartitionRule.GetHash().Partitions = 4097 }, "partition_rule.hash.partitions", 0},
		{"long table info", func(r *metasrvpb.CreateRequest) { r.TableInfo = make([]byte, catalog.MaxTableInfo+1) }, "table_info", 0},
		{"too many replicas", func(r *metasrvpb.CreateRequest) { r.Replicas = router.MaxReplicas + 1 }, "replicas", 0},
		{"long timeout", func(r *metasrvpb.CreateRequest) { r.CreationTimeoutMs = router.MaxCreationTimeoutMs + 1 }, "creation_timeout_ms", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := &metasrvpb.CreateRequest{
				TableName: tableName("t"),
				Schema:    schema(),
				PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
					Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: 3}}},
			}
			tt.change(req)
			regions, err := router.PlanRegions(req)
			checkField(t, err, tt.field)
			if len(regions) != tt.regions {
				t.Errorf("%d regions, want %d", len(regions), tt.regions)
			}
			for i, p := range req.Partitions {
				if err == nil && regions[i].Partition != p {
					t.Errorf("region %d has another partition than was sent", i)
				}
			}
		})
	}
}

func TestValidateCommitAndAbort(t *testing.T) {
	replica := &metasrvpb.CreatedReplica{ReplicaId: 1}
	checkField(t, router.ValidateCommit(&metasrvpb.CommitTableRequest{TableId: 1024, Replicas: []*metasrvpb.CreatedReplica{replica}}), "")
	checkField(t, router.ValidateCommit(&metasrvpb.CommitTableRequest{}), "table_id")
	checkField(t, router.ValidateCommit(&metasrvpb.CommitTableRequest{TableId: 1024, Replicas: []*metasrvpb.CreatedReplica{replica, replica}}), "replicas[1].replica_id")
	checkField(t, router.ValidateCommit(&metasrvpb.CommitTableRequest{TableId: 1024, Schema: &metasrvpb.TableSchema{}}), "schema.columns")
	checkField(t, router.ValidateAbort(&metasrvpb.AbortTableRequest{TableId: 1024, Reason: "r"}), "")
	checkField(t, router.ValidateAbort(&metasrvpb.AbortTableRequest{}), "table_id")
	checkField(t, router.ValidateAbort(&metasrvpb.AbortTableRequest{TableId: 1, Reason: string(make([]byte, 1025))}), "reason")
}

func checkField(t *testing.T, err error, field string) {
	t.Helper()
	e, _ := errors.AsType[*metasrv.Error](err)
	switch {
	case field == "" && err != nil:
		t.Errorf("refused: %v", err)
	case field != "" && (!errors.Is(err, metasrv.ErrInvalidArgument) || e.Field != field):
		t.Errorf("error %v, want one of field %s", err, field)
	}
}
