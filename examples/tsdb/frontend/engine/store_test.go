package engine

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// memoryStore holds tables in memory, for tests of what the engine asks of a Store.
type memoryStore struct {
	mu      sync.Mutex
	nextID  metasrv.TableID
	schemas map[string]bool
	tables  map[metasrv.TableName]*memoryTable
	// scans holds what was asked for, in order.
	scans   []cluster.Query
	scanned []string
	// failScanAfter makes scans fail behind so many rows.
	failScanAfter int
	writeErr      error
	replicas      uint32
}

type memoryTable struct {
	*cluster.Table
	rule *metasrvpb.PartitionRule
	rows [][]any
}

func newMemoryStore() *memoryStore {
	return &memoryStore{
		nextID: metasrv.FirstTableID, failScanAfter: -1,
		schemas: map[string]bool{"public": true},
		tables:  map[metasrv.TableName]*memoryTable{},
	}
}

func (s *memoryStore) Schemas(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.schemas)), nil
}

func (s *memoryStore) HasSchema(_ context.Context, schema string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schemas[schema], nil
}

func (s *memoryStore) CreateSchema(_ context.Context, schema string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schemas[schema] {
		return metasrv.ErrSchemaExists.With("schema %s exists", schema)
	}
	s.schemas[schema] = true
	return nil
}

func (s *memoryStore) DropSchema(_ context.Context, schema string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.tables {
		if n.Schema == schema {
			return metasrv.ErrSchemaNotEmpty.With("schema %s has tables", schema)
		}
	}
	delete(s.schemas, schema)
	return nil
}

func (s *memoryStore) TableNames(_ context.Context, schema string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for n := range s.tables {
		if n.Schema == schema {
			names = append(names, n.Table)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s *memoryStore) Name(schema, table string) metasrv.TableName {
	return metasrv.TableName{Catalog: "greptime", Schema: schema, Table: table}
}

func (s *memoryStore) Table(_ context.Context, name metasrv.TableName) (*cluster.Table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := name.Validate(); err != nil {
		return nil, err
	}
	t, ok := s.tables[name]
	if !ok {
		return nil, metasrv.ErrTableNotFound.With("table %s does not exist", name)
	}
	return t.Table, nil
}

func (s *memoryStore) PartitionRule(_ context.Context, t *cluster.Table) (*metasrvpb.PartitionRule, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tables[t.Name].rule, nil
}

func (s *memoryStore) CreateTable(_ context.Context, t *cluster.NewTable) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.tables[t.Name]; ok {
		return metasrv.ErrTableExists.With("table %s exists", t.Name)
	}
	s.replicas = t.Replicas
	s.tables[t.Name] = &memoryTable{Table: &cluster.Table{
		Name: t.Name, ID: s.nextID, Schema: t.Schema, SchemaVersion: 1,
	}, rule: t.Rule}
	s.nextID++
	return nil
}

func (s *memoryStore) DropTable(_ context.Context, name metasrv.TableName) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tables, name)
	return nil
}

func (s *memoryStore) Write(_ context.Context, inserts ...cluster.Insert) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writeErr != nil {
		return s.writeErr
	}
	for _, in := range inserts {
		t := s.tables[in.Table.Name]
		for _, row := range in.Rows {
			t.put(row)
		}
	}
	return nil
}

func (t *memoryTable) put(row []any) {
	var key []int
	for _, k := range t.Schema.GetPrimaryKey() {
		_, i := t.Column(k)
		key = append(key, i)
	}
	for i, r := range t.rows {
		if len(key) > 0 && keyOf(r, key) == keyOf(row, key) {
			t.rows[i] = row
			return
		}
	}
	t.rows = append(t.rows, row)
}

func (s *memoryStore) Scan(_ context.Context, t *cluster.Table, q cluster.Query) (cluster.RowIter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans = append(s.scans, q)
	s.scanned = append(s.scanned, t.Name.Table)
	rows := &memoryRows{failAfter: s.failScanAfter}
	for _, r := range s.tables[t.Name].rows {
		if !holds(t, r, q.Conditions) {
			continue
		}
		out := make([]any, len(q.Columns))
		for i, c := range q.Columns {
			_, at := t.Column(c.GetName())
			out[i] = r[at]
		}
		rows.rows = append(rows.rows, out)
	}
	return rows, nil
}

func (s *memoryStore) lastScan() cluster.Query {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scans[len(s.scans)-1]
}

func holds(t *cluster.Table, row []any, conditions []cluster.Condition) bool {
	for _, c := range conditions {
		_, i := t.Column(c.Column)
		if !holdsOne(row[i], c) {
			return false
		}
	}
	return true
}

func holdsOne(v any, c cluster.Condition) bool {
	switch c.Comparison {
	case tsdbpb.Comparison_COMPARISON_IS_NULL:
		return v == nil
	case tsdbpb.Comparison_COMPARISON_IS_NOT_NULL:
		return v != nil
	}
	if v == nil {
		return false
	}
	if c.Comparison == tsdbpb.Comparison_COMPARISON_IN {
		return slices.ContainsFunc(c.Values, func(w any) bool { return compareStored(v, w) == 0 })
	}
	o := compareStored(v, c.Values[0])
	switch c.Comparison {
	case tsdbpb.Comparison_COMPARISON_EQ:
		return o == 0
	case tsdbpb.Comparison_COMPARISON_LT:
		return o < 0
	case tsdbpb.Comparison_COMPARISON_LE:
		return o <= 0
	case tsdbpb.Comparison_COMPARISON_GT:
		return o > 0
	case tsdbpb.Comparison_COMPARISON_GE:
		return o >= 0
	}
	panic("unknown comparison")
}

func compareStored(a, b any) int {
	switch a := a.(type) {
	case bool:
		if a == b.(bool) {
			return 0
		}
		return 1
	case int64:
		return cmp.Compare(a, b.(int64))
	case uint64:
		return cmp.Compare(a, b.(uint64))
	case float64:
		return cmp.Compare(a, b.(float64))
	case string:
		return cmp.Compare(a, b.(string))
	case []byte:
		return bytes.Compare(a, b.([]byte))
	}
	return cmp.Compare(a.(column.Timestamp), b.(column.Timestamp))
}

type memoryRows struct {
	rows      [][]any
	failAfter int
}

func (r *memoryRows) Next() ([]any, error) {
	if r.failAfter == 0 {
		return nil, metasrv.ErrNotReady.With("datanode 1 went away")
	}
	r.failAfter--
	if len(r.rows) == 0 {
		return nil, io.EOF
	}
	row := r.rows[0]
	r.rows = r.rows[1:]
	return row, nil
}

func (r *memoryRows) Close() {}
