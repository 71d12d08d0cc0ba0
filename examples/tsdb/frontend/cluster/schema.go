package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// askAgainTimeout bounds how long metasrv is asked for what is known, if not for sure.
const askAgainTimeout = time.Second

// schemas remembers which schemas there are. The SQL engine asks with every statement; metasrv need not be on the
// way of each, and reads and writes of known tables go on while it can't be asked.
type schemas struct {
	mu   sync.Mutex
	at   map[string]time.Time
	list []string
	// listAt is when list was read, zero where it is not to be used.
	listAt time.Time
}

func (s *schemas) seen(name string) (age time.Duration, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[name]
	return time.Since(at), ok
}

func (s *schemas) see(name string, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if there {
		s.at[name] = time.Now()
		return
	}
	delete(s.at, name)
}

func (s *schemas) all() (list []string, age time.Duration, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list, time.Since(s.listAt), !s.listAt.IsZero()
}

func (s *schemas) keep(list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.listAt = list, time.Now()
}

// forget is called when a schema is created or dropped here.
func (s *schemas) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, name)
	s.list, s.listAt = nil, time.Time{}
}

// HasSchema reports whether there is a schema of this name. One that was there is believed for
// Config.SchemaAge, and while metasrv can't be asked.
func (c *Cluster) HasSchema(ctx context.Context, schema string) (bool, error) {
	if metasrv.ValidateName("schema_name", schema) != nil {
		return false, nil
	}
	age, known := c.schemas.seen(schema)
	if known {
		if age < c.cfg.SchemaAge {
			return true, nil
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askAgainTimeout)
		defer cancel()
	}
	_, err := c.catalog.GetSchema(ctx, &metasrvpb.GetSchemaRequest{
		CatalogName: metasrv.DefaultCatalog, SchemaName: schema,
	})
	switch {
	case errors.Is(err, metasrv.ErrSchemaNotFound), errors.Is(err, metasrv.ErrCatalogNotFound):
		c.schemas.see(schema, false)
		return false, nil
	case err == nil || known && isTransient(err):
		c.schemas.see(schema, true)
		return true, nil
	}
	return false, fmt.Errorf("schema %s: %w", schema, err)
}

// Schemas returns the names of the schemas, sorted. The list may be Config.SchemaAge old, and older while metasrv
// can't be asked. It must not be changed.
func (c *Cluster) Schemas(ctx context.Context) ([]string, error) {
	list, age, known := c.schemas.all()
	if known {
		if age < c.cfg.SchemaAge {
			return list, nil
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askAgainTimeout)
		defer cancel()
	}
	resp, err := c.catalog.ListSchemas(ctx, &metasrvpb.ListSchemasRequest{CatalogName: metasrv.DefaultCatalog})
	switch {
	case err != nil && known && isTransient(err):
		c.schemas.keep(list)
		return list, nil
	case err != nil:
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	list = nil
	for _, s := range resp.GetSchemas() {
		list = append(list, s.GetSchemaName())
	}
	c.schemas.keep(list)
	return list, nil
}

// CreateSchema returns metasrv.ErrSchemaExists where there is one of this name.
func (c *Cluster) CreateSchema(ctx context.Context, schema string) error {
	defer c.schemas.forget(schema)
	_, err := c.catalog.CreateSchema(ctx, &metasrvpb.CreateSchemaRequest{
		CatalogName: metasrv.DefaultCatalog, SchemaName: schema,
	})
	if err != nil {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}
	return nil
}

// DropSchema returns metasrv.ErrSchemaNotEmpty where the schema has tables.
func (c *Cluster) DropSchema(ctx context.Context, schema string) error {
	defer c.schemas.forget(schema)
	_, err := c.catalog.DropSchema(ctx, &metasrvpb.DropSchemaRequest{
		CatalogName: metasrv.DefaultCatalog, SchemaName: schema,
	})
	if err != nil {
		return fmt.Errorf("drop schema %s: %w", schema, err)
	}
	return nil
}
