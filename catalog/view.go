package catalog

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// GetCatalog returns a catalog, or ErrCatalogNotFound.
func GetCatalog(v state.View, name string) (*storagepb.CatalogRecord, error) {
	record := &storagepb.CatalogRecord{}
	ok, err := read(v, catalogKey(name), record)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, metasrv.ErrCatalogNotFound.With("catalog %q does not exist", name)
	}
	return record, nil
}

// ListCatalogs returns all catalogs, sorted by name.
func ListCatalogs(v state.View) ([]*storagepb.CatalogRecord, error) {
	var records []*storagepb.CatalogRecord
	for key, value := range v.Ascend(catalogPrefix, end(catalogPrefix)) {
		record := &storagepb.CatalogRecord{}
		if err := decode(key, value, record); err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}

// GetSchema returns a schema, or ErrCatalogNotFound or ErrSchemaNotFound.
func GetSchema(v state.View, catalog, schema string) (*storagepb.SchemaRecord, error) {
	record := &storagepb.SchemaRecord{}
	ok, err := read(v, schemaKey(catalog, schema), record)
	if err != nil {
		return nil, err
	}
	if ok {
		return record, nil
	}
	if _, err := GetCatalog(v, catalog); err != nil {
		return nil, err
	}
	return nil, metasrv.ErrSchemaNotFound.With("schema %q does not exist in catalog %q", schema, catalog)
}

// ListSchemas returns the schemas of a catalog, or of all catalogs where it is empty, sorted by catalog and
// name. ErrCatalogNotFound: there is no such catalog.
func ListSchemas(v state.View, catalog string) ([]*storagepb.SchemaRecord, error) {
	prefix := schemaPrefix
	if catalog != "" {
		if _, err := GetCatalog(v, catalog); err != nil {
			return nil, err
		}
		prefix = schemaKey(catalog, "")
	}
	var records []*storagepb.SchemaRecord
	for key, value := range v.Ascend(prefix, end(prefix)) {
		record := &storagepb.SchemaRecord{}
		if err := decode(key, value, record); err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	// Some characters sort before '/': the order of keys is not that of names.
	slices.SortFunc(records, func(a, b *storagepb.SchemaRecord) int {
		return cmp.Or(strings.Compare(a.CatalogName, b.CatalogName), strings.Compare(a.SchemaName, b.SchemaName))
	})
	return records, nil
}

// GetTable returns a table in any state by its id, or ErrTableNotFound.
func GetTable(v state.View, id metasrv.TableID) (*storagepb.TableRecord, error) {
	record := &storagepb.TableRecord{}
	ok, err := read(v, tableKey(id), record)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, metasrv.ErrTableNotFound.With("table %d does not exist", id)
	}
	return record, nil
}

// GetPublicTable returns a table in state PUBLIC by its id, or ErrTableNotFound.
func GetPublicTable(v state.View, id metasrv.TableID) (*storagepb.TableRecord, error) {
	record, err := GetTable(v, id)
	if err != nil {
		return nil, err
	}
	if record.State != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return nil, metasrv.ErrTableNotFound.With("table %d (%s) is %s, not public", id, Name(record), StateName(record.State))
	}
	return record, nil
}

// FindTable returns the table in state PUBLIC that has a name, or ErrCatalogNotFound, ErrSchemaNotFound or
// ErrTableNotFound, whichever part of the name is missing.
func FindTable(v state.View, name metasrv.TableName) (*storagepb.TableRecord, error) {
	record, err := holder(v, name)
	if err != nil {
		return nil, err
	}
	if record == nil {
		if _, err := GetSchema(v, name.Catalog, name.Schema); err != nil {
			return nil, err
		}
		return nil, metasrv.ErrTableNotFound.With("table %q does not exist", name)
	}
	if record.State != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return nil, metasrv.ErrTableNotFound.With("table %q is not public yet: its creation is under way", name)
	}
	return record, nil
}

// holder returns the table that holds a name, CREATING or PUBLIC, or nil.
func holder(v state.View, name metasrv.TableName) (*storagepb.TableRecord, error) {
	key := nameKey(name)
	value, ok := v.Get(key)
	if !ok {
		return nil, nil
	}
	id, err := decodeID(key, value)
	if err != nil {
		return nil, err
	}
	record, err := GetTable(v, id)
	if err != nil {
		return nil, fmt.Errorf("%s names table %d, which has no record", key, id)
	}
	return record, nil
}

// TableValue returns the stored record of a table, nil where there is none: whoever keeps something made from it sees by
// it whether the table has changed.
func TableValue(v state.View, id metasrv.TableID) []byte {
	value, _ := v.Get(tableKey(id))
	return value
}

const recordStateField = 3 // of TableRecord

// StateIn returns the state in the stored record of a table, TABLE_STATE_UNSPECIFIED for nil. It reads nothing else.
func StateIn(value []byte) metasrvpb.TableState {
	s, _ := state.Field(value, recordStateField)
	return metasrvpb.TableState(s) //nolint:gosec // an enum
}

// NameValue returns what is stored under a name, nil where no table holds it.
func NameValue(v state.View, name metasrv.TableName) []byte {
	value, _ := v.Get(nameKey(name))
	return value
}

// NamedTable returns the table that holds a name, CREATING or PUBLIC, with what is stored under the name.
func NamedTable(v state.View, name metasrv.TableName) (id metasrv.TableID, value []byte, ok bool) {
	if value = NameValue(v, name); value == nil {
		return 0, nil, false
	}
	id, err := decodeID(namePrefix, value)
	return id, value, err == nil
}

// Filter says which tables ListTables returns.
type Filter struct {
	// Catalog and Schema limit the tables; empty means all. A schema needs a catalog.
	Catalog, Schema string
	// AllStates includes tables that are not PUBLIC.
	AllStates bool
}

// ListTables returns tables sorted by name, then id. ErrCatalogNotFound, ErrSchemaNotFound: what the filter
// names does not exist. ErrInvalidArgument: it names a schema without its catalog.
func ListTables(v state.View, f Filter) ([]*storagepb.TableRecord, error) {
	prefix, err := f.prefix(v)
	if err != nil {
		return nil, err
	}
	var records []*storagepb.TableRecord
	for key, value := range v.Ascend(prefix, end(prefix)) {
		id, err := decodeID(key, value)
		if err != nil {
			return nil, err
		}
		record, err := GetTable(v, id)
		if err != nil {
			return nil, err
		}
		if f.AllStates || record.State == metasrvpb.TableState_TABLE_STATE_PUBLIC {
			records = append(records, record)
		}
	}
	if f.AllStates {
		nameless, err := f.nameless(v)
		if err != nil {
			return nil, err
		}
		records = append(records, nameless...)
	}
	slices.SortFunc(records, func(a, b *storagepb.TableRecord) int {
		return cmp.Or(compareNames(Name(a), Name(b)), cmp.Compare(a.Id, b.Id))
	})
	return records, nil
}

// PageTables returns the tables with ids behind one, sorted by id: up to limit of those that the filter asks for, of
// up to MaxScanned that it looks at. next is where to go on, 0 where no table is left. Errors are those of ListTables.
func PageTables(v state.View, f Filter, after metasrv.TableID, limit int) (records []*storagepb.TableRecord, next metasrv.TableID, err error) {
	if _, err := f.prefix(v); err != nil {
		return nil, 0, err
	}
	scanned := 0
	for key, value := range v.Ascend(tableKey(after+1), end(TablePrefix)) {
		if len(records) == limit || scanned == MaxScanned {
			return records, after, nil
		}
		record := &storagepb.TableRecord{}
		if err := decode(key, value, record); err != nil {
			return nil, 0, err
		}
		scanned++
		after = metasrv.TableID(record.Id)
		if f.takes(record) {
			records = append(records, record)
		}
	}
	return records, 0, nil
}

// MaxScanned bounds how many tables are looked at for one page.
const MaxScanned = 10_000

func (f Filter) takes(table *storagepb.TableRecord) bool {
	name := Name(table)
	return (f.AllStates || table.State == metasrvpb.TableState_TABLE_STATE_PUBLIC) &&
		(f.Catalog == "" || name.Catalog == f.Catalog) && (f.Schema == "" || name.Schema == f.Schema)
}

// prefix returns that of the names of the tables that the filter asks for.
func (f Filter) prefix(v state.View) (string, error) {
	switch {
	case f.Catalog == "" && f.Schema == "":
		return namePrefix, nil
	case f.Catalog == "":
		return "", metasrv.InvalidArgument("catalog_name", "is empty, but schema_name is %q", f.Schema)
	case f.Schema == "":
		_, err := GetCatalog(v, f.Catalog)
		return namePrefix + f.Catalog + "/", err
	}
	_, err := GetSchema(v, f.Catalog, f.Schema)
	return namePrefix + f.Catalog + "/" + f.Schema + "/", err
}

// nameless returns the tables in the filter's catalog and schema that have given up their names.
func (f Filter) nameless(v state.View) ([]*storagepb.TableRecord, error) {
	var records []*storagepb.TableRecord
	for record, err := range Pending(v) {
		if err != nil {
			return nil, err
		}
		name := Name(record)
		if holdsName(record.State) || f.Catalog != "" && name.Catalog != f.Catalog || f.Schema != "" && name.Schema != f.Schema {
			continue
		}
		records = append(records, record)
	}
	return records, nil
}

// PendingIDs returns the ids of the tables that are not PUBLIC, rising. It costs nothing for the tables that are. After an
// error it ends.
func PendingIDs(v state.View) iter.Seq2[metasrv.TableID, error] {
	return func(yield func(metasrv.TableID, error) bool) {
		for key := range v.Ascend(pendingPrefix, end(pendingPrefix)) {
			id, err := strconv.ParseUint(key[len(pendingPrefix):], 16, 64)
			if err != nil {
				yield(0, fmt.Errorf("key %s has no table id", key))
				return
			}
			if !yield(metasrv.TableID(id), nil) {
				return
			}
		}
	}
}

// Pending returns the tables that are not PUBLIC, as PendingIDs does.
func Pending(v state.View) iter.Seq2[*storagepb.TableRecord, error] {
	return func(yield func(*storagepb.TableRecord, error) bool) {
		for id, err := range PendingIDs(v) {
			var record *storagepb.TableRecord
			if err == nil {
				record, err = GetTable(v, id)
			}
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

// AnyPending reports whether Pending has a table.
func AnyPending(v state.View) bool {
	for range v.Ascend(pendingPrefix, end(pendingPrefix)) {
		return true
	}
	return false
}

// NextTableID returns the id of the table that is reserved next: every id below was given out.
func NextTableID(v state.View) metasrv.TableID {
	return metasrv.TableID(state.Peek(v, sequenceKey, uint64(metasrv.FirstTableID)))
}

// Counts says how much a catalog holds.
type Counts struct {
	Catalogs, Schemas, PublicTables uint64
}

// Count returns the counts of everything. It reads every key, but decodes no table.
func Count(v state.View) Counts {
	count := func(prefix string) (n uint64) {
		for range v.Ascend(prefix, end(prefix)) {
			n++
		}
		return n
	}
	return Counts{
		Catalogs:     count(catalogPrefix),
		Schemas:      count(schemaPrefix),
		PublicTables: count(TablePrefix) - count(pendingPrefix),
	}
}

func compareNames(a, b metasrv.TableName) int {
	return cmp.Or(strings.Compare(a.Catalog, b.Catalog), strings.Compare(a.Schema, b.Schema), strings.Compare(a.Table, b.Table))
}

func read(v state.View, key string, record proto.Message) (bool, error) {
	value, ok := v.Get(key)
	if !ok {
		return false, nil
	}
	return true, decode(key, value, record)
}

func decode(key string, value []byte, record proto.Message) error {
	if err := state.Decode(value, record); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
