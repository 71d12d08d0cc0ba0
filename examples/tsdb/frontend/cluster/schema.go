package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// askAgainTimeout bounds how long a statement waits for metasrv's answer to what is known, if not for sure.
const askAgainTimeout = 500 * time.Millisecond

// schemas remembers which schemas there are. The SQL engine asks with every statement; metasrv need not be on the
// way of each, and reads and writes of known tables go on while it can't be asked.
type schemas struct {
	mu    sync.Mutex
	list  []string
	known bool
	// believedAt is when the list was read or, where metasrv did not answer, was last taken for good.
	believedAt time.Time
	// changes counts the schemas created and dropped here: a list asked for before a change is not kept.
	changes int
	// asking is the question under way, nil where there is none.
	asking *question
	// questions are the goroutines that ask.
	questions sync.WaitGroup
}

// question is a call of ListSchemas. list and err are there when done is closed.
type question struct {
	done chan struct{}
	list []string
	err  error
}

// HasSchema reports whether there is a schema of this name, by the list of Schemas.
func (c *Cluster) HasSchema(ctx context.Context, schema string) (bool, error) {
	if metasrv.ValidateName("schema_name", schema) != nil {
		return false, nil
	}
	list, err := c.Schemas(ctx)
	if err != nil {
		return false, fmt.Errorf("schema %s: %w", schema, err)
	}
	return slices.Contains(list, schema), nil
}

// Schemas returns the names of the schemas, sorted. The list may be Config.SchemaAge old, and older while metasrv
// doesn't answer: then it is read again in the background. It must not be changed.
func (c *Cluster) Schemas(ctx context.Context) ([]string, error) {
	list, known, q := c.knownSchemas()
	if q == nil {
		return list, nil
	}
	var late <-chan time.Time
	if known {
		timer := time.NewTimer(askAgainTimeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("list schemas: %w", context.Cause(ctx))
	case <-late:
	case <-q.done:
		switch {
		case q.err == nil:
			return q.list, nil
		case !known || !isTransient(q.err):
			return nil, fmt.Errorf("list schemas: %w", plain(q.err))
		}
	}
	c.schemas.mu.Lock()
	defer c.schemas.mu.Unlock()
	c.schemas.believedAt = time.Now()
	return c.schemas.list, nil
}

// knownSchemas returns what is known and, where that isn't believed any more, the question for what there is.
func (c *Cluster) knownSchemas() (list []string, known bool, q *question) {
	s := &c.schemas
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known && time.Since(s.believedAt) < c.cfg.SchemaAge {
		return s.list, true, nil
	}
	if s.asking == nil {
		s.asking = &question{done: make(chan struct{})}
		asked, changes := s.asking, s.changes
		s.questions.Go(func() { c.askSchemas(asked, changes) })
	}
	return s.list, s.known, s.asking
}

// askSchemas answers a question that was asked behind so many changes.
func (c *Cluster) askSchemas(q *question, changes int) {
	resp, err := c.catalog.ListSchemas(c.background, &metasrvpb.ListSchemasRequest{CatalogName: metasrv.DefaultCatalog})
	if q.err = err; errors.Is(err, metasrv.ErrCatalogNotFound) {
		q.err = nil // there are no schemas in it
	}
	for _, schema := range resp.GetSchemas() {
		q.list = append(q.list, schema.GetSchemaName())
	}
	s := &c.schemas
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking == q {
		s.asking = nil
	}
	if q.err == nil && s.changes == changes {
		s.list, s.known, s.believedAt = q.list, true, time.Now()
	}
	close(q.done)
}

// changed has the list read again, behind a change that was made here. Until then it holds the schema, or doesn't,
// where err says that the change was made.
func (s *schemas) changed(schema string, there bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	s.believedAt, s.asking = time.Time{}, nil
	if err != nil {
		return
	}
	s.list = slices.DeleteFunc(slices.Clone(s.list), func(name string) bool { return name == schema })
	if there {
		s.list = append(s.list, schema)
		slices.Sort(s.list)
	}
}

// CreateSchema returns metasrv.ErrSchemaExists where there is one of this name.
func (c *Cluster) CreateSchema(ctx context.Context, schema string) error {
	_, err := c.catalog.CreateSchema(ctx, &metasrvpb.CreateSchemaRequest{
		CatalogName: metasrv.DefaultCatalog, SchemaName: schema,
	})
	c.schemas.changed(schema, true, err)
	if err != nil {
		return fmt.Errorf("create schema %s: %w", schema, plain(err))
	}
	return nil
}

// DropSchema returns metasrv.ErrSchemaNotEmpty where the schema has tables.
func (c *Cluster) DropSchema(ctx context.Context, schema string) error {
	_, err := c.catalog.DropSchema(ctx, &metasrvpb.DropSchemaRequest{
		CatalogName: metasrv.DefaultCatalog, SchemaName: schema,
	})
	c.schemas.changed(schema, false, err)
	if err != nil {
		return fmt.Errorf("drop schema %s: %w", schema, plain(err))
	}
	return nil
}
