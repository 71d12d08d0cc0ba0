package catalog_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// crowded has names with characters that sort before and after the separator of keys.
func crowded(t *testing.T) cluster {
	c := newCluster(t)
	for _, name := range []string{"c-", "c0", "b"} {
		c.must(createCatalog, &storagepb.CreateCatalog{Name: name})
		for _, schema := range []string{"s-", "s0", "s"} {
			c.must(createSchema, &storagepb.CreateSchema{CatalogName: name, SchemaName: schema})
			table := createTable("t")
			table.Name.CatalogName, table.Name.SchemaName = name, schema
			c.must(publish, &storagepb.CommitTable{TableId: c.table(c.must(reserve, table)).Id})
		}
	}
	c.must(createSchema, &storagepb.CreateSchema{CatalogName: "c", SchemaName: "s-"})
	c.public("t")
	c.public("t-")
	c.reserve("creating")
	c.must(abort, &storagepb.AbortTable{TableId: c.reserve("aborted").Id})
	return c
}

func TestLists(t *testing.T) {
	c := crowded(t)
	catalogs, err := catalog.ListCatalogs(c.View())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range catalogs {
		names = append(names, r.Name)
	}
	if want := []string{"b", "c", "c-", "c0"}; !slices.Equal(names, want) {
		t.Errorf("catalogs = %v, want %v", names, want)
	}
	for from, want := range map[string][]string{
		"":  {"b.s", "b.s-", "b.s0", "c.s", "c.s-", "c-.s", "c-.s-", "c-.s0", "c0.s", "c0.s-", "c0.s0"},
		"c": {"c.s", "c.s-"},
	} {
		schemas, err := catalog.ListSchemas(c.View(), from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range schemas {
			got = append(got, r.CatalogName+"."+r.SchemaName)
		}
		if !slices.Equal(got, want) {
			t.Errorf("schemas of %q = %v, want %v", from, got, want)
		}
	}
}

func TestListTables(t *testing.T) {
	c := crowded(t)
	tests := []struct {
		filter catalog.Filter
		want   []string
	}{
		{catalog.Filter{}, []string{
			"b.s.t", "b.s-.t", "b.s0.t", "c.s.t", "c.s.t-",
			"c-.s.t", "c-.s-.t", "c-.s0.t", "c0.s.t", "c0.s-.t", "c0.s0.t",
		}},
		{catalog.Filter{Catalog: "c"}, []string{"c.s.t", "c.s.t-"}},
		{catalog.Filter{Catalog: "b", Schema: "s-"}, []string{"b.s-.t"}},
		{catalog.Filter{Catalog: "c", AllStates: true}, []string{"c.s.aborted", "c.s.creating", "c.s.t", "c.s.t-"}},
		{catalog.Filter{Catalog: "c", Schema: "s-", AllStates: true}, nil},
		{catalog.Filter{Catalog: "b", AllStates: true}, []string{"b.s.t", "b.s-.t", "b.s0.t"}},
	}
	for _, tt := range tests {
		tables, err := catalog.ListTables(c.View(), tt.filter)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range tables {
			got = append(got, catalog.Name(r).String())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%+v: %s", tt.filter, diff)
		}
	}
	want := catalog.Counts{Catalogs: 4, Schemas: 11, PublicTables: 11}
	if got := catalog.Count(c.View()); got != want {
		t.Errorf("counts = %+v, want %+v", got, want)
	}
}

func TestNotFoundNamesWhatIsMissing(t *testing.T) {
	v := crowded(t).View()
	find := func(n metasrv.TableName) error { _, err := catalog.FindTable(v, n); return err }
	list := func(f catalog.Filter) error { _, err := catalog.ListTables(v, f); return err }
	schemas := func(name string) error { _, err := catalog.ListSchemas(v, name); return err }
	public := func(id metasrv.TableID) error { _, err := catalog.GetPublicTable(v, id); return err }
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"catalog of table", find(metasrv.TableName{Catalog: "x", Schema: "s", Table: "t"}), metasrv.ErrCatalogNotFound},
		{"schema of table", find(metasrv.TableName{Catalog: "c", Schema: "x", Table: "t"}), metasrv.ErrSchemaNotFound},
		{"table", find(named("x")), metasrv.ErrTableNotFound},
		{"table being created", find(named("creating")), metasrv.ErrTableNotFound},
		{"aborted table", find(named("aborted")), metasrv.ErrTableNotFound},
		{"aborted table by id", public(1036), metasrv.ErrTableNotFound},
		{"tables of catalog", list(catalog.Filter{Catalog: "x"}), metasrv.ErrCatalogNotFound},
		{"tables of schema", list(catalog.Filter{Catalog: "c", Schema: "x"}), metasrv.ErrSchemaNotFound},
		{"schema without catalog", list(catalog.Filter{Schema: "s"}), metasrv.ErrInvalidArgument},
		{"schemas of catalog", schemas("x"), metasrv.ErrCatalogNotFound},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
}
