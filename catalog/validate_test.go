package catalog_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestValidateSchema(t *testing.T) {
	tests := []struct {
		name   string
		change func(*metasrvpb.TableSchema)
		field  string // "" where the schema is right
	}{
		{"as it is", func(*metasrvpb.TableSchema) {}, ""},
		{"integer time index", func(s *metasrvpb.TableSchema) { s.Columns[1].Type = metasrvpb.DataType_DATA_TYPE_INT64 }, ""},
		{"no keys", func(s *metasrvpb.TableSchema) { s.PrimaryKey, s.TimeIndex = nil, "" }, ""},
		{"no columns", func(s *metasrvpb.TableSchema) { s.Columns = nil }, "schema.columns"},
		{"too many columns", func(s *metasrvpb.TableSchema) { s.Columns = make([]*metasrvpb.Column, 4097) }, "schema.columns"},
		{"nameless column", func(s *metasrvpb.TableSchema) { s.Columns[1].Name = "" }, "schema.columns[1].name"},
		{"nil column", func(s *metasrvpb.TableSchema) { s.Columns[1] = nil }, "schema.columns[1].name"},
		{"column twice", func(s *metasrvpb.TableSchema) { s.Columns[2].Name = "host" }, "schema.columns[2].name"},
		{"no type", func(s *metasrvpb.TableSchema) { s.Columns[0].Type = 0 }, "schema.columns[0].type"},
		{"unknown type", func(s *metasrvpb.TableSchema) { s.Columns[0].Type = 99 }, "schema.columns[0].type"},
		{"unknown key column", func(s *metasrvpb.TableSchema) { s.PrimaryKey[1] = "x" }, "schema.primary_key[1]"},
		{"key column twice", func(s *metasrvpb.TableSchema) { s.PrimaryKey[1] = "host" }, "schema.primary_key[1]"},
		{"unknown time index", func(s *metasrvpb.TableSchema) { s.TimeIndex = "x" }, "schema.time_index"},
		{"time index of strings", func(s *metasrvpb.TableSchema) { s.TimeIndex = "host" }, "schema.time_index"},
		{"nameless option", func(s *metasrvpb.TableSchema) { s.Options = map[string]string{"": "x"} }, "schema.options"},
		{"long option", func(s *metasrvpb.TableSchema) {
			s.Options = map[string]string{"x": strings.Repeat("x", catalog.MaxOptionLength+1)}
		}, "schema.options"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := schema()
			tt.change(s)
			checkField(t, catalog.ValidateSchema("schema", s), tt.field)
		})
	}
	checkField(t, catalog.ValidateSchema("schema", nil), "schema")
}

func checkField(t *testing.T, err error, field string) {
	t.Helper()
	e, _ := errors.AsType[*metasrv.Error](err)
	switch {
	case field == "" && err != nil:
		t.Errorf("refused: %v", err)
	case field != "" && (!errors.Is(err, metasrv.ErrInvalidArgument) || e.Field != field):
		t.Errorf("error %v, want one of field %s", err, field)
	}
}
