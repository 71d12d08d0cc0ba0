package store_test

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	typeBool      = metasrvpb.DataType_DATA_TYPE_BOOL
	typeInt       = metasrvpb.DataType_DATA_TYPE_INT64
	typeUint      = metasrvpb.DataType_DATA_TYPE_UINT64
	typeFloat     = metasrvpb.DataType_DATA_TYPE_FLOAT64
	typeString    = metasrvpb.DataType_DATA_TYPE_STRING
	typeBytes     = metasrvpb.DataType_DATA_TYPE_BYTES
	typeTimestamp = metasrvpb.DataType_DATA_TYPE_TIMESTAMP
)

func column(name string, t metasrvpb.DataType) *metasrvpb.Column {
	return &metasrvpb.Column{Name: name, Type: t, Nullable: true}
}

// everyType has a column of each type, and no primary key.
func everyType() *metasrvpb.TableSchema {
	return &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{
		column("id", typeInt), column("b", typeBool), column("u", typeUint), column("f", typeFloat),
		column("s", typeString), column("x", typeBytes), column("t", typeTimestamp),
	}, TimeIndex: "t"}
}

// keyed has the primary key host, t.
func keyed() *metasrvpb.TableSchema {
	return &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{
		column("host", typeString), column("t", typeTimestamp), column("v", typeFloat),
	}, PrimaryKey: []string{"host", "t"}, TimeIndex: "t"}
}

var region = metasrv.NewRegionID(1024, 3)

func definition(schema *metasrvpb.TableSchema) *tsdbpb.CreateRegionRequest {
	return &tsdbpb.CreateRegionRequest{
		Route:       &tsdbpb.Route{RegionId: uint64(region), ReplicaId: 7, LeaderEpoch: 2, RouteVersion: 1},
		ConfVersion: 1, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, Schema: schema,
		TableName: &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: "t"},
	}
}

func open(t *testing.T, folder string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Folder: folder, NodeID: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func create(t *testing.T, s *store.Store, d *tsdbpb.CreateRegionRequest) *store.Replica {
	t.Helper()
	r, err := s.Create(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rowsOf(t *testing.T, schema *metasrvpb.TableSchema, rows ...[]any) *tsdbpb.RowBatch {
	t.Helper()
	b := batch.New(schema.GetColumns())
	for _, row := range rows {
		if err := b.Append(row); err != nil {
			t.Fatal(err)
		}
	}
	return b.Take()
}

func write(t *testing.T, r *store.Replica, id string, rows *tsdbpb.RowBatch) *store.Appended {
	t.Helper()
	out, err := r.Append(t.Context(), r.State().LeaderEpoch, []store.Write{{ID: []byte(id), Rows: rows}}, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func query(t *testing.T, r *store.Replica, q *tsdbpb.QueryRequest) [][]any {
	t.Helper()
	var out [][]any
	err := r.Query(t.Context(), q, func(b *tsdbpb.RowBatch) error {
		for row := range int(b.GetRowCount()) {
			values := []any{}
			for _, c := range b.GetColumns() {
				values = append(values, batch.Value(c, row))
			}
			out = append(out, values)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func names(schema *metasrvpb.TableSchema) []string {
	var out []string
	for _, c := range schema.GetColumns() {
		out = append(out, c.GetName())
	}
	return out
}

// TestValuesSurvive stores the values at the borders of each type, and reads them back from a reopened file.
func TestValuesSurvive(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	want := [][]any{
		{int64(1), true, uint64(0), 0.5, "", []byte{}, int64(0)},
		{int64(-1 << 63), false, uint64(1<<64 - 1), -1e308, "a\x00b'\"; DROP TABLE data", []byte{0, 255}, int64(-1)},
		{int64(1<<63 - 1), nil, uint64(1 << 63), 1e-300, "größe 😀", nil, int64(1<<63 - 1)},
		{nil, nil, nil, nil, nil, nil, nil},
	}
	write(t, create(t, s, definition(everyType())), "w", rowsOf(t, everyType(), want...))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := open(t, folder).Replica(region)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, query(t, r, &tsdbpb.QueryRequest{Columns: names(everyType())})); diff != "" {
		t.Error(diff)
	}
	if diff := gocmp.Diff([][]any{{uint64(1<<64 - 1)}, {uint64(1 << 63)}},
		query(t, r, &tsdbpb.QueryRequest{Columns: []string{"u"}, Limit: 2,
			Order: []*tsdbpb.Order{{Column: "u", Descending: true}}})); diff != "" {
		t.Error(diff)
	}
	if got := query(t, r, &tsdbpb.QueryRequest{}); len(got) != 4 {
		t.Errorf("%d rows without columns, want 4", len(got))
	}
}

// TestPrimaryKey replaces rows with the same key, also within a write; without a key every row is kept.
func TestPrimaryKey(t *testing.T) {
	r := create(t, open(t, t.TempDir()), definition(keyed()))
	write(t, r, "1", rowsOf(t, keyed(), []any{"a", int64(1), 1.0}, []any{"a", int64(2), 2.0}, []any{"a", int64(1), 3.0}))
	write(t, r, "2", rowsOf(t, keyed(), []any{"a", int64(2), nil}, []any{"b", int64(2), 4.0}))
	want := [][]any{{"a", int64(1), 3.0}, {"a", int64(2), nil}, {"b", int64(2), 4.0}}
	if diff := gocmp.Diff(want, query(t, r, &tsdbpb.QueryRequest{Columns: names(keyed())})); diff != "" {
		t.Error(diff)
	}
	if n, err := r.Rows(t.Context()); n != 3 || err != nil {
		t.Errorf("%d rows, %v; want 3", n, err)
	}
}

// TestRepeatedWrite stores a write once, also after a restart, and with a repetition beside it in one Append.
func TestRepeatedWrite(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	r := create(t, s, definition(everyType()))
	row := rowsOf(t, everyType(), []any{int64(1), nil, nil, nil, nil, nil, nil})
	one, two := store.Write{ID: []byte("1"), Rows: row}, store.Write{ID: []byte("2"), Rows: row}
	appendAll := func(r *store.Replica, want []uint64, writes ...store.Write) {
		t.Helper()
		out, err := r.Append(t.Context(), 2, writes, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, out.Seqs); diff != "" {
			t.Error(diff)
		}
	}
	appendAll(r, []uint64{1}, one)
	appendAll(r, []uint64{1, 2, 2}, one, two, two)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := open(t, folder).Replica(region)
	if err != nil {
		t.Fatal(err)
	}
	appendAll(r, []uint64{2, 1}, two, one)
	if got := query(t, r, &tsdbpb.QueryRequest{}); len(got) != 2 {
		t.Errorf("%d rows, want 2", len(got))
	}
}

// TestHostileNames stores and reads columns whose names would break SQL that contained them.
func TestHostileNames(t *testing.T) {
	hostile := []string{
		`a"); DROP TABLE data; --`, `c0`, `C0`, `'`, "`", `a b`, `rowid`, `"`, `]`, "\x00", `select`, `c1 FROM meta --`,
	}
	schema := &metasrvpb.TableSchema{PrimaryKey: hostile[:2], TimeIndex: hostile[2]}
	var row []any
	for i, name := range hostile {
		schema.Columns = append(schema.Columns, column(name, typeInt))
		row = append(row, int64(i))
	}
	r := create(t, open(t, t.TempDir()), definition(schema))
	write(t, r, "1", rowsOf(t, schema, row))
	for i, name := range hostile {
		got := query(t, r, &tsdbpb.QueryRequest{
			Columns: []string{name}, Order: []*tsdbpb.Order{{Column: name}},
			Filters: []*tsdbpb.Filter{{Column: name, Comparison: tsdbpb.Comparison_COMPARISON_EQ,
				Values: []*metasrvpb.Value{{Kind: &metasrvpb.Value_Int64Value{Int64Value: int64(i)}}}}},
		})
		if diff := gocmp.Diff([][]any{{int64(i)}}, got); diff != "" {
			t.Errorf("column %q: %s", name, diff)
		}
	}
	for _, q := range []*tsdbpb.QueryRequest{
		{Columns: []string{"1; DROP TABLE data"}},
		{Order: []*tsdbpb.Order{{Column: "c0; DROP TABLE data"}}},
		{Filters: []*tsdbpb.Filter{{Column: "1=1 OR c0", Comparison: tsdbpb.Comparison_COMPARISON_IS_NULL}}},
		{Filters: []*tsdbpb.Filter{{Column: "c0", Comparison: 99}}},
		{Filters: []*tsdbpb.Filter{{Column: "c0", Comparison: tsdbpb.Comparison_COMPARISON_EQ}}},
		{Filters: []*tsdbpb.Filter{{Column: "c0", Comparison: tsdbpb.Comparison_COMPARISON_EQ,
			Values: []*metasrvpb.Value{{Kind: &metasrvpb.Value_StringValue{StringValue: "1"}}}}}},
	} {
		err := r.Query(t.Context(), q, func(*tsdbpb.RowBatch) error { return nil })
		if !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%v: %v, want an invalid argument", q, err)
		}
	}
}

// TestFilters compares filters, order and limit over random rows with a plain evaluation in Go.
func TestFilters(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	schema := everyType()
	r := create(t, open(t, t.TempDir()), definition(schema))
	var rows [][]any
	for i := range 300 {
		row := []any{int64(i)}
		for _, c := range schema.GetColumns()[1:] {
			row = append(row, randomValue(rng, c.GetType(), true))
		}
		rows = append(rows, row)
	}
	write(t, r, "1", rowsOf(t, schema, rows...))
	for range 200 {
		q := &tsdbpb.QueryRequest{Columns: []string{"id"}}
		for range rng.IntN(3) {
			q.Filters = append(q.Filters, randomFilter(rng, schema.GetColumns()[1+rng.IntN(6)]))
		}
		by := rng.IntN(7)
		descending := rng.IntN(2) == 0
		q.Order = []*tsdbpb.Order{
			{Column: schema.GetColumns()[by].GetName(), Descending: descending}, {Column: "id"},
		}
		q.Limit = uint64(rng.IntN(2) * rng.IntN(100))
		if diff := gocmp.Diff(naive(t, rows, schema, q, by, descending), query(t, r, q)); diff != "" {
			t.Fatalf("%v:\n%s", q, diff)
		}
	}
}

func randomValue(rng *rand.Rand, t metasrvpb.DataType, nullable bool) any {
	if nullable && rng.IntN(5) == 0 {
		return nil
	}
	const text = "aAbB_%'é0"
	switch t {
	case typeBool:
		return rng.IntN(2) == 0
	case typeUint:
		return []uint64{0, 1, 2, 1<<63 - 1, 1 << 63, 1<<64 - 1}[rng.IntN(6)]
	case typeFloat:
		return []float64{-1e300, -1, 0, 0.5, 1, 1 << 53, 1e300}[rng.IntN(7)]
	case typeString:
		from := rng.IntN(4)
		return strings.ToValidUTF8(text[from:from+rng.IntN(3)], "?")
	case typeBytes:
		return binary.AppendUvarint(nil, uint64(rng.IntN(300)))[:rng.IntN(2)]
	}
	return int64(rng.IntN(9) - 4)
}

func randomFilter(rng *rand.Rand, c *metasrvpb.Column) *tsdbpb.Filter {
	f := &tsdbpb.Filter{Column: c.GetName(), Comparison: tsdbpb.Comparison(1 + rng.IntN(9))}
	n := 1
	switch f.GetComparison() {
	case tsdbpb.Comparison_COMPARISON_IN:
		n = rng.IntN(4)
	case tsdbpb.Comparison_COMPARISON_IS_NULL, tsdbpb.Comparison_COMPARISON_IS_NOT_NULL:
		n = 0
	}
	for range n {
		f.Values = append(f.Values, literal(randomValue(rng, c.GetType(), false), c.GetType()))
	}
	return f
}

func literal(v any, t metasrvpb.DataType) *metasrvpb.Value {
	switch x := v.(type) {
	case bool:
		return &metasrvpb.Value{Kind: &metasrvpb.Value_BoolValue{BoolValue: x}}
	case uint64:
		return &metasrvpb.Value{Kind: &metasrvpb.Value_Uint64Value{Uint64Value: x}}
	case float64:
		return &metasrvpb.Value{Kind: &metasrvpb.Value_Float64Value{Float64Value: x}}
	case string:
		return &metasrvpb.Value{Kind: &metasrvpb.Value_StringValue{StringValue: x}}
	case []byte:
		return &metasrvpb.Value{Kind: &metasrvpb.Value_BytesValue{BytesValue: x}}
	case int64:
		if t == typeTimestamp {
			return &metasrvpb.Value{Kind: &metasrvpb.Value_TimestampValue{TimestampValue: x}}
		}
		return &metasrvpb.Value{Kind: &metasrvpb.Value_Int64Value{Int64Value: x}}
	}
	return nil
}

func naive(
	t *testing.T, rows [][]any, schema *metasrvpb.TableSchema, q *tsdbpb.QueryRequest, by int, descending bool,
) [][]any {
	t.Helper()
	var kept [][]any
	for _, row := range rows {
		if !slices.ContainsFunc(q.GetFilters(), func(f *tsdbpb.Filter) bool { return !holds(t, row, schema, f) }) {
			kept = append(kept, row)
		}
	}
	slices.SortStableFunc(kept, func(a, b []any) int {
		order := compare(a[by], b[by])
		if descending {
			order = -order
		}
		return cmp.Or(order, compare(a[0], b[0]))
	})
	var out [][]any
	for _, row := range kept {
		if q.GetLimit() == 0 || uint64(len(out)) < q.GetLimit() {
			out = append(out, row[:1])
		}
	}
	return out
}

func holds(t *testing.T, row []any, schema *metasrvpb.TableSchema, f *tsdbpb.Filter) bool {
	t.Helper()
	i := slices.Index(names(schema), f.GetColumn())
	v := row[i]
	switch f.GetComparison() {
	case tsdbpb.Comparison_COMPARISON_IS_NULL:
		return v == nil
	case tsdbpb.Comparison_COMPARISON_IS_NOT_NULL:
		return v != nil
	}
	if v == nil {
		return false
	}
	var orders []int
	for _, literal := range f.GetValues() {
		want, err := batch.Literal(literal, schema.GetColumns()[i].GetType())
		if err != nil {
			t.Fatal(err)
		}
		orders = append(orders, compare(v, want))
	}
	switch f.GetComparison() {
	case tsdbpb.Comparison_COMPARISON_IN:
		return slices.Contains(orders, 0)
	case tsdbpb.Comparison_COMPARISON_EQ:
		return orders[0] == 0
	case tsdbpb.Comparison_COMPARISON_NE:
		return orders[0] != 0
	case tsdbpb.Comparison_COMPARISON_LT:
		return orders[0] < 0
	case tsdbpb.Comparison_COMPARISON_LE:
		return orders[0] <= 0
	case tsdbpb.Comparison_COMPARISON_GT:
		return orders[0] > 0
	}
	return orders[0] >= 0
}

// compare orders two values of a type, nil first.
func compare(a, b any) int {
	switch x := a.(type) {
	case nil:
		if b == nil {
			return 0
		}
		return -1
	case bool:
		if y, ok := b.(bool); ok && x != y {
			return map[bool]int{false: -1, true: 1}[x]
		} else if ok {
			return 0
		}
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	case uint64:
		if y, ok := b.(uint64); ok {
			return cmp.Compare(x, y)
		}
	case float64:
		if y, ok := b.(float64); ok {
			return cmp.Compare(x, y)
		}
	case string:
		if y, ok := b.(string); ok {
			return cmp.Compare(x, y)
		}
	case []byte:
		if y, ok := b.([]byte); ok {
			return slices.Compare(x, y)
		}
	}
	return 1
}

// TestCreate is repeatable with the same definition only.
func TestCreate(t *testing.T) {
	s := open(t, t.TempDir())
	d := definition(keyed())
	first := create(t, s, d)
	if again := create(t, s, proto.CloneOf(d)); again != first {
		t.Error("the repeated create made another replica")
	}
	other := proto.CloneOf(d)
	other.Route.ReplicaId = 8
	changed := proto.CloneOf(d)
	changed.Schema = everyType()
	for _, d := range []*tsdbpb.CreateRegionRequest{other, changed} {
		if _, err := s.Create(t.Context(), d); !errors.Is(err, store.ErrExists) {
			t.Errorf("%v, want ErrExists", err)
		}
	}
	for name, spoil := range map[string]func(*tsdbpb.CreateRegionRequest){
		"no region":     func(d *tsdbpb.CreateRegionRequest) { d.Route.RegionId = 0 },
		"no epoch":      func(d *tsdbpb.CreateRegionRequest) { d.Route.LeaderEpoch = 0 },
		"no role":       func(d *tsdbpb.CreateRegionRequest) { d.Role = 0 },
		"no columns":    func(d *tsdbpb.CreateRegionRequest) { d.Schema = nil },
		"twice":         func(d *tsdbpb.CreateRegionRequest) { d.Schema.Columns = append(d.Schema.Columns, d.Schema.Columns[0]) },
		"key unknown":   func(d *tsdbpb.CreateRegionRequest) { d.Schema.PrimaryKey = []string{"x"} },
		"time unknown":  func(d *tsdbpb.CreateRegionRequest) { d.Schema.TimeIndex = "x" },
		"peer is self":  func(d *tsdbpb.CreateRegionRequest) { d.Peers = []*tsdbpb.ReplicaPeer{{ReplicaId: 7}} },
		"peer nameless": func(d *tsdbpb.CreateRegionRequest) { d.Peers = []*tsdbpb.ReplicaPeer{{ReplicaId: 9}} },
	} {
		d := proto.CloneOf(d)
		d.Route.RegionId++
		spoil(d)
		if _, err := s.Create(t.Context(), d); !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%s: %v, want an invalid argument", name, err)
		}
	}
}

// TestDrop deletes the named replica only, and leaves no file.
func TestDrop(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	r := create(t, s, definition(keyed()))
	write(t, r, "1", rowsOf(t, keyed(), []any{"a", int64(1), 1.0}))
	if _, err := s.Drop(t.Context(), region, 8, 2); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("other replica id: %v, want ErrNotFound", err)
	}
	if _, err := s.Drop(t.Context(), region, 7, 1); !errors.Is(err, store.ErrStaleEpoch) {
		t.Errorf("old epoch: %v, want ErrStaleEpoch", err)
	}
	// A query under way ends with the replica.
	reading, goOn := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- r.Query(context.Background(), &tsdbpb.QueryRequest{}, func(*tsdbpb.RowBatch) error {
			close(reading)
			<-goOn
			return nil
		})
	}()
	<-reading
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Drop(ctx, region, 7, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("in use: %v, want canceled", err)
	}
	close(goOn)
	<-ended
	if existed, err := s.Drop(t.Context(), region, 7, 2); !existed || err != nil {
		t.Errorf("existed %t, %v", existed, err)
	}
	if existed, err := s.Drop(t.Context(), region, 7, 2); existed || err != nil {
		t.Errorf("again: existed %t, %v", existed, err)
	}
	if _, err := r.Append(t.Context(), 2, nil, false, 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("write after drop: %v, want ErrNotFound", err)
	}
	left, _ := filepath.Glob(filepath.Join(folder, "region-*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestDamage: what is wrong with a file is told, and the file is not touched; the others are served.
func TestDamage(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"truncated": func(path string) error { return os.Truncate(path, 5000) },
		"garbage": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("garbage ", 4096)), 0o600)
		},
		"meta": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.ReplaceAll(string(data), "stored_seq", "stored_xxx")), 0o600)
		},
		"definition": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.ReplaceAll(string(data), "leaderEpoch", "leaderxxxxx")), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			s := open(t, folder)
			write(t, create(t, s, definition(keyed())), "1", rowsOf(t, keyed(), []any{"a", int64(1), 1.0}))
			healthy := definition(keyed())
			healthy.Route.RegionId++
			create(t, s, healthy)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(folder, "region-1024-3-7.db")
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s = open(t, folder)
			r, err := s.Replica(region)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Damage(); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want ErrDamaged naming %s", err, path)
			}
			if err := r.Query(t.Context(), &tsdbpb.QueryRequest{}, nil); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("query: %v, want ErrDamaged", err)
			}
			if _, err := s.Create(t.Context(), definition(keyed())); !errors.Is(err, store.ErrExists) {
				t.Errorf("create: %v, want ErrExists", err)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the damaged file was changed")
			}
			other, err := s.Replica(region + 1)
			if err != nil || other.Damage() != nil {
				t.Errorf("the healthy replica: %v, %v", err, other.Damage())
			}
			if existed, err := s.Drop(t.Context(), region, 7, 2); !existed || err != nil {
				t.Errorf("drop: %t, %v", existed, err)
			}
		})
	}
}

// TestOtherVersion: a file that another version of the program has written is named as such, with what to do, and left alone.
func TestOtherVersion(t *testing.T) {
	for _, version := range []int{1, 3} {
		folder := t.TempDir()
		s := open(t, folder)
		create(t, s, definition(keyed()))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, "region-1024-3-7.db")
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.ExecContext(t.Context(), "UPDATE meta SET value = ? WHERE key = 'format'", version)
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		s = open(t, folder)
		r, err := s.Replica(region)
		if err != nil {
			t.Fatal(err)
		}
		err = r.Damage()
		for _, part := range []string{path, fmt.Sprintf("it is of version %d, this program reads version 2", version), "start the version of tsdb"} {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("%v, want %q in it", err, part)
			}
		}
		if !errors.Is(err, store.ErrFormat) || errors.Is(err, store.ErrDamaged) {
			t.Errorf("%v, want ErrFormat alone", err)
		}
		if err := r.Query(t.Context(), &tsdbpb.QueryRequest{}, nil); !errors.Is(err, store.ErrFormat) {
			t.Errorf("query: %v, want ErrFormat", err)
		}
		if existed, err := s.Drop(t.Context(), region, 7, 2); !existed || err != nil {
			t.Errorf("drop: %t, %v", existed, err)
		}
	}
}

// TestUnfinished: a crash during a create or a drop leaves nothing that is served.
func TestUnfinished(t *testing.T) {
	folder := t.TempDir()
	if err := open(t, folder).Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"region-1-2-3.db.tmp", "region-1-2-3.db.tmp-wal", "region-4-5-6.db-wal"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(open(t, folder).Replicas()); n != 0 {
		t.Errorf("%d replicas", n)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "region-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestFolder: one process, one node, for ever; and no new identity for a folder that has replicas.
func TestFolder(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	if _, err := store.Open(t.Context(), store.Config{Folder: folder, NodeID: 1}); !errors.Is(err, store.ErrLocked) ||
		!strings.Contains(err.Error(), folder) {
		t.Errorf("second start: %v, want ErrLocked naming %s", err, folder)
	}
	create(t, s, definition(keyed()))
	uuid := s.StorageUUID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), store.Config{Folder: folder, NodeID: 2}); err == nil {
		t.Error("opened by another node")
	}
	again := open(t, folder)
	if got := again.StorageUUID(); got != uuid {
		t.Errorf("storage uuid %s, was %s", got, uuid)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func(string) error{
		func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		os.Remove,
	} {
		if err := spoil(filepath.Join(folder, "node.json")); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), store.Config{Folder: folder, NodeID: 1}); err == nil ||
			!strings.Contains(err.Error(), folder) {
			t.Errorf("without owner: %v, want an error naming %s", err, folder)
		}
	}
}

// TestFolderBelongsToOneCluster, from the first BindCluster on, and over restarts.
func TestFolderBelongsToOneCluster(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	if id := s.ClusterID(); id != 0 {
		t.Errorf("a new folder belongs to cluster %d", id)
	}
	uuid := s.StorageUUID()
	for range 2 {
		if err := s.BindCluster(1<<63 + 1); err != nil {
			t.Fatal(err)
		}
		if err := s.BindCluster(5); !errors.Is(err, store.ErrOtherCluster) || !strings.Contains(err.Error(), folder) {
			t.Errorf("another cluster: %v, want ErrOtherCluster naming %s", err, folder)
		}
		if s.ClusterID() != 1<<63+1 || s.StorageUUID() != uuid {
			t.Errorf("cluster %d, storage uuid %s (was %s)", s.ClusterID(), s.StorageUUID(), uuid)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, folder)
	}
}

// TestOpenFilesAreBounded uses more replicas than may stay open, at the same time and in turn.
func TestOpenFilesAreBounded(t *testing.T) {
	folder := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Folder: folder, NodeID: 1, MaxOpen: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range 20 {
		d := definition(keyed())
		d.Route.RegionId += uint64(i)
		write(t, create(t, s, d), "1", rowsOf(t, keyed(), []any{"a", int64(i), 1.0}))
	}
	links, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	open := map[string]bool{}
	for _, l := range links {
		if target, _ := os.Readlink("/proc/self/fd/" + l.Name()); strings.HasSuffix(target, ".db") {
			open[target] = true
		}
	}
	if len(open) > 3 {
		t.Errorf("%d replicas are open, at most 3 wanted", len(open))
	}
	for i, r := range s.Replicas() {
		want := [][]any{{int64(i)}}
		if diff := gocmp.Diff(want, query(t, r, &tsdbpb.QueryRequest{Columns: []string{"t"}})); diff != "" {
			t.Error(diff)
		}
	}
}
