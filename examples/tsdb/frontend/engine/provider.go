package engine

import (
	"errors"
	"slices"
	"strings"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/vitess/go/mysql"

	"github.com/metasrv/metasrv"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// provider shows the schemas of the catalog as databases.
type provider struct{ store Store }

var _ sql.CollatedDatabaseProvider = (*provider)(nil)

// Database implements sql.DatabaseProvider. Names match exactly, else without regard to case.
func (p *provider) Database(ctx *sql.Context, name string) (sql.Database, error) {
	exact, err := p.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return &database{store: p.store, name: exact}, nil
}

// find returns the exact name of a schema.
func (p *provider) find(ctx *sql.Context, name string) (string, error) {
	switch ok, err := p.store.HasSchema(ctx, name); {
	case err != nil:
		return "", toMySQL(err)
	case ok:
		return name, nil
	}
	schemas, err := p.store.Schemas(ctx)
	if err != nil {
		return "", toMySQL(err)
	}
	i := slices.IndexFunc(schemas, func(s string) bool { return strings.EqualFold(s, name) })
	if i < 0 {
		return "", sqlError(mysql.ERBadDb, "42000", "Unknown database '%s'", name)
	}
	return schemas[i], nil
}

// HasDatabase implements sql.DatabaseProvider.
func (p *provider) HasDatabase(ctx *sql.Context, name string) bool {
	_, err := p.Database(ctx, name)
	return err == nil
}

// AllDatabases implements sql.DatabaseProvider. It can't say that it failed, so it warns.
func (p *provider) AllDatabases(ctx *sql.Context) []sql.Database {
	var all []sql.Database
	schemas, err := p.store.Schemas(ctx)
	if err != nil {
		ctx.Warn(mysql.ERUnknownError, "the schemas can't be listed: %s", err)
	}
	for _, s := range schemas {
		all = append(all, &database{store: p.store, name: s})
	}
	return all
}

// CreateDatabase implements sql.MutableDatabaseProvider.
func (p *provider) CreateDatabase(ctx *sql.Context, name string) error {
	return toMySQL(p.store.CreateSchema(ctx, name))
}

// CreateCollatedDatabase implements sql.CollatedDatabaseProvider.
func (p *provider) CreateCollatedDatabase(ctx *sql.Context, name string, c sql.CollationID) error {
	if c != column.Collation {
		return notSupported("collation %s is not supported, only %s is", c.Name(), column.Collation.Name())
	}
	return p.CreateDatabase(ctx, name)
}

// DropDatabase implements sql.MutableDatabaseProvider. A database with tables is not dropped.
func (p *provider) DropDatabase(ctx *sql.Context, name string) error {
	exact, err := p.find(ctx, name)
	if err != nil {
		return err
	}
	err = p.store.DropSchema(ctx, exact)
	if errors.Is(err, metasrv.ErrSchemaNotEmpty) {
		return sqlError(erDBNotEmpty, "HY000", "database '%s' has tables: drop them first", exact)
	}
	return toMySQL(err)
}

// database is one schema.
type database struct {
	store Store
	name  string
}

var (
	_ sql.TableCreator     = (*database)(nil)
	_ sql.TableDropper     = (*database)(nil)
	_ sql.CollatedDatabase = (*database)(nil)
)

// Name implements sql.Database.
func (d *database) Name() string { return d.name }

// GetTableInsensitive implements sql.Database. Names match exactly, else without regard to case.
func (d *database) GetTableInsensitive(ctx *sql.Context, name string) (sql.Table, bool, error) {
	t, err := d.store.Table(ctx, d.store.Name(d.name, name))
	if errors.Is(err, metasrv.ErrTableNotFound) {
		exact, found, err := d.find(ctx, name)
		if err != nil || !found {
			return nil, false, err
		}
		t, err = d.store.Table(ctx, d.store.Name(d.name, exact))
		if err != nil {
			return nil, false, toMySQL(err)
		}
		return newTable(d.store, t), true, nil
	}
	if errors.Is(err, metasrv.ErrInvalidArgument) {
		return nil, false, nil // no table can have this name
	}
	if err != nil {
		return nil, false, toMySQL(err)
	}
	return newTable(d.store, t), true, nil
}

func (d *database) find(ctx *sql.Context, name string) (string, bool, error) {
	names, err := d.GetTableNames(ctx)
	if err != nil {
		return "", false, err
	}
	i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 || names[i] == name {
		return "", false, nil
	}
	return names[i], true, nil
}

// GetTableNames implements sql.Database.
func (d *database) GetTableNames(ctx *sql.Context) ([]string, error) {
	names, err := d.store.TableNames(ctx, d.name)
	return names, toMySQL(err)
}

// DropTable implements sql.TableDropper.
func (d *database) DropTable(ctx *sql.Context, name string) error {
	return toMySQL(d.store.DropTable(ctx, d.store.Name(d.name, name)))
}

// GetCollation implements sql.CollatedDatabase.
func (d *database) GetCollation(*sql.Context) sql.CollationID { return column.Collation }

// SetCollation implements sql.CollatedDatabase.
func (d *database) SetCollation(_ *sql.Context, c sql.CollationID) error {
	if c == column.Collation {
		return nil
	}
	return notSupported("collation %s is not supported, only %s is", c.Name(), column.Collation.Name())
}
