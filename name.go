package metasrv

import (
	"unicode"
	"unicode/utf8"
)

// The catalog and schema that every cluster has: the metasrv leader of a new one creates them.
const (
	DefaultCatalog = "greptime"
	DefaultSchema  = "public"
)

// MaxNameLength is the longest name of a catalog, schema, table or column, in bytes.
const MaxNameLength = 255

// TableName is the full name of a table.
type TableName struct {
	Catalog, Schema, Table string
}

// String returns the name as people read it: catalog.schema.table.
func (n TableName) String() string { return n.Catalog + "." + n.Schema + "." + n.Table }

// Validate returns ErrInvalidArgument, naming the part at fault, where the name can't be one of a table.
func (n TableName) Validate() error {
	if err := ValidateName("catalog_name", n.Catalog); err != nil {
		return err
	}
	if err := ValidateName("schema_name", n.Schema); err != nil {
		return err
	}
	return ValidateName("table_name", n.Table)
}

// ValidateName returns ErrInvalidArgument for the given request field unless name is 1 to MaxNameLength bytes
// of printable UTF-8 without '.' and '/'.
func ValidateName(field, name string) error {
	switch {
	case name == "":
		return InvalidArgument(field, "is empty")
	case len(name) > MaxNameLength:
		return InvalidArgument(field, "has %d bytes, at most %d are allowed", len(name), MaxNameLength)
	case !utf8.ValidString(name):
		return InvalidArgument(field, "%q is not UTF-8", name)
	}
	for _, r := range name {
		if r == '.' || r == '/' || !unicode.IsPrint(r) {
			return InvalidArgument(field, "%q contains %q", name, r)
		}
	}
	return nil
}
