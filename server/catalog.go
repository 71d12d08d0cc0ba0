package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// catalogService is the Catalog service over package catalog; the life of tables is router's.
type catalogService struct {
	metasrvpb.UnimplementedCatalogServer
	*services
}

func (s catalogService) CreateCatalog(
	ctx context.Context, req *metasrvpb.CreateCatalogRequest,
) (*metasrvpb.CreateCatalogResponse, error) {
	if err := metasrv.ValidateName("catalog_name", req.GetCatalogName()); err != nil {
		return nil, err
	}
	var result storagepb.CatalogRecord
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG, &storagepb.CreateCatalog{
		Name: req.GetCatalogName(), IfNotExists: req.GetIfNotExists(), WallTimeMs: wallTime(),
	}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.CreateCatalogResponse{Header: h, Catalog: catalog.ToCatalogInfo(&result)}, nil
}

func (s catalogService) GetCatalog(ctx context.Context, req *metasrvpb.GetCatalogRequest) (*metasrvpb.GetCatalogResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	record, err := catalog.GetCatalog(view, req.GetCatalogName())
	if err != nil {
		return nil, err
	}
	return &metasrvpb.GetCatalogResponse{Header: view.header(), Catalog: catalog.ToCatalogInfo(record)}, nil
}

func (s catalogService) ListCatalogs(
	ctx context.Context, req *metasrvpb.ListCatalogsRequest,
) (*metasrvpb.ListCatalogsResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	records, err := catalog.ListCatalogs(view)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ListCatalogsResponse{Header: view.header(), Catalogs: each(records, catalog.ToCatalogInfo)}, nil
}

func (s catalogService) DropCatalog(ctx context.Context, req *metasrvpb.DropCatalogRequest) (*metasrvpb.DropCatalogResponse, error) {
	if err := metasrv.ValidateName("catalog_name", req.GetCatalogName()); err != nil {
		return nil, err
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_DROP_CATALOG,
		&storagepb.DropCatalog{Name: req.GetCatalogName()}, &storagepb.CatalogRecord{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.DropCatalogResponse{Header: h}, nil
}

func (s catalogService) CreateSchema(
	ctx context.Context, req *metasrvpb.CreateSchemaRequest,
) (*metasrvpb.CreateSchemaResponse, error) {
	if err := validateSchemaName(req.GetCatalogName(), req.GetSchemaName()); err != nil {
		return nil, err
	}
	var result storagepb.SchemaRecord
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CREATE_SCHEMA, &storagepb.CreateSchema{
		CatalogName: req.GetCatalogName(), SchemaName: req.GetSchemaName(), IfNotExists: req.GetIfNotExists(), WallTimeMs: wallTime(),
	}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.CreateSchemaResponse{Header: h, Schema: catalog.ToSchemaInfo(&result)}, nil
}

func (s catalogService) GetSchema(ctx context.Context, req *metasrvpb.GetSchemaRequest) (*metasrvpb.GetSchemaResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	record, err := catalog.GetSchema(view, req.GetCatalogName(), req.GetSchemaName())
	if err != nil {
		return nil, err
	}
	return &metasrvpb.GetSchemaResponse{Header: view.header(), Schema: catalog.ToSchemaInfo(record)}, nil
}

func (s catalogService) ListSchemas(ctx context.Context, req *metasrvpb.ListSchemasRequest) (*metasrvpb.ListSchemasResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	records, err := catalog.ListSchemas(view, req.GetCatalogName())
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ListSchemasResponse{Header: view.header(), Schemas: each(records, catalog.ToSchemaInfo)}, nil
}

func (s catalogService) DropSchema(ctx context.Context, req *metasrvpb.DropSchemaRequest) (*metasrvpb.DropSchemaResponse, error) {
	if err := validateSchemaName(req.GetCatalogName(), req.GetSchemaName()); err != nil {
		return nil, err
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_DROP_SCHEMA,
		&storagepb.DropSchema{CatalogName: req.GetCatalogName(), SchemaName: req.GetSchemaName()}, &storagepb.SchemaRecord{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.DropSchemaResponse{Header: h}, nil
}

func validateSchemaName(catalogName, schemaName string) error {
	if err := metasrv.ValidateName("catalog_name", catalogName); err != nil {
		return err
	}
	return metasrv.ValidateName("schema_name", schemaName)
}

// each returns the results of f for the elements of in.
func each[A, B any](in []A, f func(A) B) []B {
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = f(a)
	}
	return out
}
