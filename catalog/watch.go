package catalog

import (
	"iter"
	"strings"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Prefixes returns those of the keys of catalogs, schemas and tables, in the order in which Present shows them.
func Prefixes() []string { return []string{catalogPrefix, schemaPrefix, TablePrefix} }

// Present returns an event for each catalog, schema and table of a state: what others lie in comes before them. After an
// error it ends.
func Present(v state.View) iter.Seq2[*metasrvpb.CatalogEvent, error] {
	return func(yield func(*metasrvpb.CatalogEvent, error) bool) {
		for _, prefix := range Prefixes() {
			for key, value := range v.Ascend(prefix, end(prefix)) {
				e, err := event(&state.Change{Key: key, Value: value}, v.Revision())
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// Events returns what a revision changed of catalogs, schemas and tables.
func Events(r state.Revision) ([]*metasrvpb.CatalogEvent, error) {
	var events []*metasrvpb.CatalogEvent
	for i := range r.Changes {
		e, err := event(&r.Changes[i], r.Number)
		if err != nil {
			return nil, err
		}
		if e != nil {
			events = append(events, e)
		}
	}
	return events, nil
}

// event returns nil for a change of other keys.
func event(c *state.Change, revision uint64) (*metasrvpb.CatalogEvent, error) {
	value, dropped := c.Value, c.Value == nil
	if dropped {
		value = c.Prev
	}
	e := &metasrvpb.CatalogEvent{Revision: revision}
	switch {
	case strings.HasPrefix(c.Key, catalogPrefix):
		record := &storagepb.CatalogRecord{}
		if err := decode(c.Key, value, record); err != nil {
			return nil, err
		}
		e.Change = &metasrvpb.CatalogEvent_Catalog{Catalog: ToCatalogInfo(record)}
		if dropped {
			e.Change = &metasrvpb.CatalogEvent_CatalogDropped{CatalogDropped: ToCatalogInfo(record)}
		}
	case strings.HasPrefix(c.Key, schemaPrefix):
		record := &storagepb.SchemaRecord{}
		if err := decode(c.Key, value, record); err != nil {
			return nil, err
		}
		e.Change = &metasrvpb.CatalogEvent_Schema{Schema: ToSchemaInfo(record)}
		if dropped {
			e.Change = &metasrvpb.CatalogEvent_SchemaDropped{SchemaDropped: ToSchemaInfo(record)}
		}
	case strings.HasPrefix(c.Key, TablePrefix):
		record := &storagepb.TableRecord{}
		if err := decode(c.Key, value, record); err != nil {
			return nil, err
		}
		e.Change = &metasrvpb.CatalogEvent_Table{Table: ToTable(record)}
		if dropped {
			e.Change = &metasrvpb.CatalogEvent_TableDropped{TableDropped: ToTable(record)}
		}
	default:
		return nil, nil
	}
	return e, nil
}
