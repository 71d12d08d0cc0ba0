package catalog

import (
	"fmt"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Bounds of what one table may bring into the replicated state.
const (
	MaxColumns      = 4096
	MaxOptions      = 256
	MaxOptionLength = 4096    // bytes of a key or a value
	MaxTableInfo    = 1 << 20 // bytes
)

// ValidateSchema returns ErrInvalidArgument, naming the field below the given one, unless the schema has
// named columns of known types, and its primary key and time index are among them.
func ValidateSchema(field string, schema *metasrvpb.TableSchema) error {
	if schema == nil {
		return metasrv.InvalidArgument(field, "is missing")
	}
	types, err := validateColumns(field+".columns", schema.Columns)
	if err != nil {
		return err
	}
	if err := validatePrimaryKey(field+".primary_key", schema.PrimaryKey, types); err != nil {
		return err
	}
	if err := validateTimeIndex(field+".time_index", schema.TimeIndex, types); err != nil {
		return err
	}
	return validateOptions(field+".options", schema.Options)
}

// validateColumns returns the types of the columns by name.
func validateColumns(field string, columns []*metasrvpb.Column) (map[string]metasrvpb.DataType, error) {
	if len(columns) == 0 || len(columns) > MaxColumns {
		return nil, metasrv.InvalidArgument(field, "has %d columns, 1 to %d are allowed", len(columns), MaxColumns)
	}
	types := make(map[string]metasrvpb.DataType, len(columns))
	for i, column := range columns {
		at := func() string { return fmt.Sprintf("%s[%d]", field, i) } // only where it is needed
		if metasrv.ValidateName("", column.GetName()) != nil {
			return nil, metasrv.ValidateName(at()+".name", column.GetName())
		}
		if _, ok := types[column.Name]; ok {
			return nil, metasrv.InvalidArgument(at()+".name", "%q is the name of another column", column.Name)
		}
		if _, ok := metasrvpb.DataType_name[int32(column.Type)]; !ok || column.Type == metasrvpb.DataType_DATA_TYPE_UNSPECIFIED {
			return nil, metasrv.InvalidArgument(at()+".type", "column %q has type %d, which is unknown", column.Name, column.Type)
		}
		types[column.Name] = column.Type
	}
	return types, nil
}

func validatePrimaryKey(field string, key []string, types map[string]metasrvpb.DataType) error {
	seen := make(map[string]bool, len(key))
	for i, name := range key {
		at := func() string { return fmt.Sprintf("%s[%d]", field, i) }
		if _, ok := types[name]; !ok {
			return metasrv.InvalidArgument(at(), "%q is no column of the table", name)
		}
		if seen[name] {
			return metasrv.InvalidArgument(at(), "%q is there twice", name)
		}
		seen[name] = true
	}
	return nil
}

// validateTimeIndex accepts integers too: databases with coarser timestamps keep them as such.
func validateTimeIndex(field, name string, types map[string]metasrvpb.DataType) error {
	if name == "" {
		return nil
	}
	switch t, ok := types[name]; {
	case !ok:
		return metasrv.InvalidArgument(field, "%q is no column of the table", name)
	case t != metasrvpb.DataType_DATA_TYPE_TIMESTAMP && t != metasrvpb.DataType_DATA_TYPE_INT64:
		return metasrv.InvalidArgument(field, "column %q is %s, must be TIMESTAMP or INT64", name, TypeName(t))
	}
	return nil
}

func validateOptions(field string, options map[string]string) error {
	if len(options) > MaxOptions {
		return metasrv.InvalidArgument(field, "has %d entries, at most %d are allowed", len(options), MaxOptions)
	}
	//purity:allow every option is held to the same rule, and the error names none
	for key, value := range options {
		if key == "" || len(key) > MaxOptionLength || len(value) > MaxOptionLength {
			return metasrv.InvalidArgument(field, "keys have 1 to %d bytes, values at most %d", MaxOptionLength, MaxOptionLength)
		}
	}
	return nil
}
