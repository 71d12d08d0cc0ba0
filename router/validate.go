package router

import (
	"errors"
	"fmt"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"
)

// Bounds of what a table may ask for.
const (
	MaxRegions  = partition.MaxPartitions
	MaxReplicas = 15
	// MaxPartitionBytes bounds the opaque partitions of a request together.
	MaxPartitionBytes = 1 << 20
	// MaxReasonLength bounds the reason of an abort, in bytes.
	MaxReasonLength = 1024
	// MaxCreationTimeoutMs is an hour: names must not be taken for long by a frontend that is gone.
	MaxCreationTimeoutMs = 60 * 60 * 1000
)

// PlanRegions checks a request and returns the regions of its table, in the order of the partitions and
// without replicas: those are placement's. ErrInvalidArgument names the field at fault.
func PlanRegions(req *metasrvpb.CreateRequest) ([]*storagepb.PlannedRegion, error) {
	if err := validateCreate(req); err != nil {
		return nil, err
	}
	if len(req.Partitions) > 0 {
		return opaqueRegions(req.Partitions)
	}
	p, err := partition.New(req.PartitionRule, req.Schema)
	if err != nil {
		return nil, err
	}
	regions := make([]*storagepb.PlannedRegion, p.Len())
	for i := range regions {
		regions[i] = &storagepb.PlannedRegion{}
	}
	return regions, nil
}

func validateCreate(req *metasrvpb.CreateRequest) error {
	if err := catalog.NameOf(req.TableName).Validate(); err != nil {
		return prefixField("table_name", err)
	}
	if len(req.TableInfo) > catalog.MaxTableInfo {
		return metasrv.InvalidArgument("table_info", "has %d bytes, at most %d are allowed", len(req.TableInfo), catalog.MaxTableInfo)
	}
	if req.Replicas > MaxReplicas {
		return metasrv.InvalidArgument("replicas", "is %d, at most %d are allowed", req.Replicas, MaxReplicas)
	}
	switch req.Storage {
	case metasrvpb.StorageKind_STORAGE_KIND_UNSPECIFIED, metasrvpb.StorageKind_STORAGE_KIND_LOCAL:
	case metasrvpb.StorageKind_STORAGE_KIND_SHARED:
		return metasrv.InvalidArgument("storage", "is SHARED, which is not supported yet: leave it out, or use LOCAL")
	default:
		return metasrv.InvalidArgument("storage", "%d is unknown", req.Storage)
	}
	if req.CreationTimeoutMs > MaxCreationTimeoutMs {
		return metasrv.InvalidArgument("creation_timeout_ms", "is %d, at most %d are allowed", req.CreationTimeoutMs, MaxCreationTimeoutMs)
	}
	if req.Schema != nil {
		if err := catalog.ValidateSchema("schema", req.Schema); err != nil {
			return err
		}
	}
	switch {
	case req.PartitionRule == nil:
		return nil
	case len(req.Partitions) > 0:
		return metasrv.InvalidArgument("partitions", "can't stand beside a partition_rule")
	case req.Schema == nil:
		return metasrv.InvalidArgument("schema", "is missing: partition_rule needs the columns")
	}
	return nil
}

// opaqueRegions returns one region for each partition of the early public protocol, whose bytes mean nothing
// here.
func opaqueRegions(partitions []*metasrvpb.Partition) ([]*storagepb.PlannedRegion, error) {
	if len(partitions) > MaxRegions {
		return nil, metasrv.InvalidArgument("partitions", "has %d entries, at most %d are allowed", len(partitions), MaxRegions)
	}
	size := 0
	regions := make([]*storagepb.PlannedRegion, len(partitions))
	for i, p := range partitions {
		for _, b := range p.GetColumnList() {
			size += len(b)
		}
		for _, b := range p.GetValueList() {
			size += len(b)
		}
		if size > MaxPartitionBytes {
			return nil, metasrv.InvalidArgument("partitions", "have more than %d bytes", MaxPartitionBytes)
		}
		regions[i] = &storagepb.PlannedRegion{Partition: p}
	}
	return regions, nil
}

// ValidateCommit returns ErrInvalidArgument, naming the field, where a commit can't succeed whatever the state.
func ValidateCommit(req *metasrvpb.CommitTableRequest) error {
	if req.TableId == 0 {
		return metasrv.InvalidArgument("table_id", "is 0")
	}
	if len(req.Replicas) > MaxRegions*MaxReplicas {
		return metasrv.InvalidArgument("replicas", "has %d entries, at most %d are allowed", len(req.Replicas), MaxRegions*MaxReplicas)
	}
	seen := make(map[uint64]bool, len(req.Replicas))
	for i, r := range req.Replicas {
		if seen[r.GetReplicaId()] {
			return metasrv.InvalidArgument(fmt.Sprintf("replicas[%d].replica_id", i), "%d is there twice", r.GetReplicaId())
		}
		seen[r.GetReplicaId()] = true
	}
	if req.Schema == nil {
		return nil
	}
	return catalog.ValidateSchema("schema", req.Schema)
}

// ValidateAbort is ValidateCommit for aborts.
func ValidateAbort(req *metasrvpb.AbortTableRequest) error {
	if req.TableId == 0 {
		return metasrv.InvalidArgument("table_id", "is 0")
	}
	if len(req.Reason) > MaxReasonLength {
		return metasrv.InvalidArgument("reason", "has %d bytes, at most %d are allowed", len(req.Reason), MaxReasonLength)
	}
	return nil
}

// prefixField puts the path of the message before the field of an error.
func prefixField(prefix string, err error) error {
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok || e.Field == "" {
		return err
	}
	c := *e
	c.Field = prefix + "." + e.Field
	return &c
}
