package engine

import (
	"context"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
)

// Store is where schemas, tables and rows are. Its errors are *metasrv.Error where metasrv refuses.
type Store interface {
	Schemas(ctx context.Context) ([]string, error)
	HasSchema(ctx context.Context, schema string) (bool, error)
	CreateSchema(ctx context.Context, schema string) error
	DropSchema(ctx context.Context, schema string) error

	// TableNames returns the names of a schema's tables.
	TableNames(ctx context.Context, schema string) ([]string, error)
	// Table returns metasrv.ErrTableNotFound where there is none.
	Table(ctx context.Context, name metasrv.TableName) (*cluster.Table, error)
	// Name returns the full name of a table of a schema.
	Name(schema, table string) metasrv.TableName
	// PartitionRule returns nil where the table has one region and no rule.
	PartitionRule(ctx context.Context, t *cluster.Table) (*metasrvpb.PartitionRule, error)
	CreateTable(ctx context.Context, t *cluster.NewTable) error
	DropTable(ctx context.Context, name metasrv.TableName) error

	// Write returns when all rows are acknowledged; after an error some may be stored.
	Write(ctx context.Context, inserts ...cluster.Insert) error
	// Scan reads all rows of a table that a query wants, or fails.
	Scan(ctx context.Context, t *cluster.Table, q cluster.Query) (cluster.RowIter, error)
}
