package column

import (
	"fmt"
	"strings"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/planbuilder"
	"github.com/dolthub/go-mysql-server/sql/types"
	"github.com/dolthub/vitess/go/sqltypes"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Collation is the only collation that columns can have: the one in which datanodes compare strings too.
const Collation = sql.Collation_utf8mb4_0900_bin

// FromSQL returns the metasrv column for a column of CREATE TABLE. The error names the column and what of it
// can't be kept.
func FromSQL(c *sql.Column) (*metasrvpb.Column, error) {
	t, err := dataType(c.Type)
	if err != nil {
		return nil, fmt.Errorf("column %s: %w", c.Name, err)
	}
	switch {
	case c.AutoIncrement:
		return nil, fmt.Errorf("column %s: AUTO_INCREMENT is not supported", c.Name)
	case c.Generated != nil:
		return nil, fmt.Errorf("column %s: generated columns are not supported", c.Name)
	case c.OnUpdate != nil:
		return nil, fmt.Errorf("column %s: ON UPDATE is not supported", c.Name)
	case c.Default != nil && !isNull(c.Default):
		return nil, fmt.Errorf("column %s: DEFAULT is not supported", c.Name)
	}
	return &metasrvpb.Column{
		Name:       c.Name,
		Type:       t,
		Nullable:   c.Nullable,
		Comment:    c.Comment,
		NativeType: nativeType(c.Type),
	}, nil
}

func isNull(d *sql.ColumnDefaultValue) bool {
	return d.IsLiteral() && d.String() == "NULL"
}

func nativeType(t sql.Type) string {
	if s, ok := t.(sql.StringType); ok {
		if c, ok := t.(sql.TypeWithCollation); ok && !types.IsBinaryType(s) {
			return c.StringWithTableCollation(Collation)
		}
	}
	return t.String()
}

func dataType(t sql.Type) (metasrvpb.DataType, error) {
	if s, ok := t.(sql.StringType); ok {
		return stringType(s)
	}
	switch t.Type() {
	case sqltypes.Int8:
		if IsBool(t) {
			return metasrvpb.DataType_DATA_TYPE_BOOL, nil
		}
		return metasrvpb.DataType_DATA_TYPE_INT64, nil
	case sqltypes.Int16, sqltypes.Int24, sqltypes.Int32, sqltypes.Int64:
		return metasrvpb.DataType_DATA_TYPE_INT64, nil
	case sqltypes.Uint8, sqltypes.Uint16, sqltypes.Uint24, sqltypes.Uint32, sqltypes.Uint64:
		return metasrvpb.DataType_DATA_TYPE_UINT64, nil
	case sqltypes.Float32, sqltypes.Float64:
		return metasrvpb.DataType_DATA_TYPE_FLOAT64, nil
	case sqltypes.Datetime, sqltypes.Timestamp, sqltypes.Date:
		return metasrvpb.DataType_DATA_TYPE_TIMESTAMP, nil
	}
	return 0, fmt.Errorf("type %s is not supported", strings.ToUpper(t.String()))
}

func stringType(t sql.StringType) (metasrvpb.DataType, error) {
	switch t.Type() {
	case sqltypes.VarBinary, sqltypes.Blob:
		return metasrvpb.DataType_DATA_TYPE_BYTES, nil
	case sqltypes.VarChar, sqltypes.Text:
		if c := t.Collation(); c != Collation && c != sql.Collation_Unspecified {
			return 0, fmt.Errorf("collation %s is not supported, only %s is", c.Name(), Collation.Name())
		}
		return metasrvpb.DataType_DATA_TYPE_STRING, nil
	case sqltypes.Char:
		return 0, fmt.Errorf("type %s is not supported, use VARCHAR", strings.ToUpper(nativeType(t)))
	case sqltypes.Binary:
		return 0, fmt.Errorf("type %s is not supported, use VARBINARY", strings.ToUpper(nativeType(t)))
	}
	return 0, fmt.Errorf("type %s is not supported", strings.ToUpper(t.String()))
}

// IsBool reports whether t is BOOLEAN, which MySQL writes TINYINT(1).
func IsBool(t sql.Type) bool {
	n, ok := t.(sql.NumberType)
	return ok && t.Type() == sqltypes.Int8 && n.DisplayWidth() == 1
}

// ToSQL returns the MySQL type of a stored column. Tables that were not made by this database may have no
// native type, or another database's: then it is the widest one that holds the metasrv type.
func ToSQL(c *metasrvpb.Column) sql.Type {
	t, err := planbuilder.ParseColumnTypeString(c.GetNativeType())
	if err == nil && c.GetNativeType() != "" {
		if s, ok := t.(sql.TypeWithCollation); ok && !types.IsBinaryType(t) {
			if t, err = s.WithNewCollation(Collation); err != nil {
				return widest(c.GetType())
			}
		}
		if d, err := dataType(t); err == nil && d == c.GetType() {
			return t
		}
	}
	return widest(c.GetType())
}

func widest(t metasrvpb.DataType) sql.Type {
	switch t {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		return types.Boolean
	case metasrvpb.DataType_DATA_TYPE_INT64:
		return types.Int64
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		return types.Uint64
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return types.Float64
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		return types.LongBlob
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		return types.DatetimeMaxPrecision
	}
	return types.MustCreateString(sqltypes.Text, types.LongTextBlobMax, Collation)
}
