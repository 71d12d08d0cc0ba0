package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

func (s catalogService) GetTable(ctx context.Context, req *metasrvpb.GetTableRequest) (*metasrvpb.GetTableResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	var table *storagepb.TableRecord
	if req.GetTableName() != nil {
		table, err = catalog.FindTable(view, catalog.NameOf(req.GetTableName()))
	} else {
		table, err = catalog.GetPublicTable(view, metasrv.TableID(req.GetTableId()))
	}
	if err != nil {
		return nil, err
	}
	return &metasrvpb.GetTableResponse{Header: view.header(), Table: catalog.ToTable(table)}, nil
}

func (s catalogService) ListTables(ctx context.Context, req *metasrvpb.ListTablesRequest) (*metasrvpb.ListTablesResponse, error) {
	after, err := tableBehind(req)
	if err != nil {
		return nil, err
	}
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	filter := catalog.Filter{Catalog: req.GetCatalogName(), Schema: req.GetSchemaName(), AllStates: req.GetAllStates()}
	var tables []*storagepb.TableRecord
	var next metasrv.TableID
	if limit := req.GetLimit(); limit > 0 || after > 0 {
		tables, next, err = catalog.PageTables(view, filter, after, pageLimit(limit))
	} else {
		tables, err = catalog.ListTables(view, filter)
	}
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ListTablesResponse{Header: view.header(), Tables: each(tables, catalog.ToTable), NextPageToken: nextPage(next)}, nil
}

func (s catalogService) AlterTable(ctx context.Context, req *metasrvpb.AlterTableRequest) (*metasrvpb.AlterTableResponse, error) {
	if err := catalog.ValidateSchema("schema", req.GetSchema()); err != nil {
		return nil, err
	}
	var result storagepb.TableResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_ALTER_TABLE, &storagepb.AlterTable{
		TableId: req.GetTableId(), ExpectedSchemaVersion: req.GetExpectedSchemaVersion(), Schema: req.GetSchema(),
	}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.AlterTableResponse{Header: h, Table: catalog.ToTable(result.GetTable())}, nil
}

func (s catalogService) RenameTable(ctx context.Context, req *metasrvpb.RenameTableRequest) (*metasrvpb.RenameTableResponse, error) {
	if err := catalog.NameOf(req.GetTableName()).Validate(); err != nil {
		return nil, err
	}
	if err := metasrv.ValidateName("new_table_name", req.GetNewTableName()); err != nil {
		return nil, err
	}
	var result storagepb.TableResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_RENAME_TABLE,
		&storagepb.RenameTable{Name: req.GetTableName(), NewTableName: req.GetNewTableName()}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.RenameTableResponse{Header: h, Table: catalog.ToTable(result.GetTable())}, nil
}

func (s catalogService) CommitTable(ctx context.Context, req *metasrvpb.CommitTableRequest) (*metasrvpb.CommitTableResponse, error) {
	if err := router.ValidateCommit(req); err != nil {
		return nil, err
	}
	replicas := each(req.GetReplicas(), func(r *metasrvpb.CreatedReplica) *storagepb.CommittedReplica {
		return &storagepb.CommittedReplica{
			RegionId: r.GetRegionId(), ReplicaId: r.GetReplicaId(), NodeId: r.GetNodeId(), Incarnation: r.GetIncarnation(),
		}
	})
	var result storagepb.TableResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_COMMIT_TABLE, &storagepb.CommitTable{
		TableId: req.GetTableId(), CreationToken: req.GetCreationToken(), Schema: req.GetSchema(), Replicas: replicas,
	}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.CommitTableResponse{Header: h, Table: catalog.ToTable(result.GetTable())}, nil
}

func (s catalogService) AbortTable(ctx context.Context, req *metasrvpb.AbortTableRequest) (*metasrvpb.AbortTableResponse, error) {
	if err := router.ValidateAbort(req); err != nil {
		return nil, err
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE, &storagepb.AbortTable{
		TableId: req.GetTableId(), CreationToken: req.GetCreationToken(), Reason: req.GetReason(),
	}, &storagepb.TableResult{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.AbortTableResponse{Header: h}, nil
}
