package partition

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Value is a value of a column, or NULL, which is the zero Value. It is the same as metasrvpb.Value without a
// pointer or an allocation. Compare values by Compare: == tells 1 and 1.0 apart.
type Value struct {
	kind kind
	// bits holds numbers, booleans and timestamps; floats as IEEE 754.
	bits uint64
	// str holds strings and bytes.
	str string
}

type kind uint8

// The kinds of values that have a column type have its number, which is also their tag in the hash encoding.
const (
	kindNull      = kind(metasrvpb.DataType_DATA_TYPE_UNSPECIFIED)
	kindBool      = kind(metasrvpb.DataType_DATA_TYPE_BOOL)
	kindInt64     = kind(metasrvpb.DataType_DATA_TYPE_INT64)
	kindUint64    = kind(metasrvpb.DataType_DATA_TYPE_UINT64)
	kindFloat64   = kind(metasrvpb.DataType_DATA_TYPE_FLOAT64)
	kindString    = kind(metasrvpb.DataType_DATA_TYPE_STRING)
	kindBytes     = kind(metasrvpb.DataType_DATA_TYPE_BYTES)
	kindTimestamp = kind(metasrvpb.DataType_DATA_TYPE_TIMESTAMP)
	kindMax       = kind(math.MaxUint8)
)

func (k kind) String() string {
	switch k {
	case kindNull:
		return "NULL"
	case kindMax:
		return "MAXVALUE"
	}
	return typeName(metasrvpb.DataType(k))
}

func typeName(t metasrvpb.DataType) string {
	return strings.TrimPrefix(t.String(), "DATA_TYPE_")
}

// Null returns NULL.
func Null() Value { return Value{} }

// MaxValue returns the bound that is above every value. No row has it.
func MaxValue() Value { return Value{kind: kindMax} }

// Bool returns a boolean.
func Bool(b bool) Value {
	if b {
		return Value{kind: kindBool, bits: 1}
	}
	return Value{kind: kindBool}
}

// Int64 returns a signed integer.
func Int64(i int64) Value { return Value{kind: kindInt64, bits: uint64(i)} } //nolint:gosec // kept bit for bit

// Uint64 returns an unsigned integer.
func Uint64(u uint64) Value { return Value{kind: kindUint64, bits: u} }

// Float64 returns a floating-point number.
func Float64(f float64) Value { return Value{kind: kindFloat64, bits: math.Float64bits(f)} }

// String returns a string. It should be UTF-8.
func String(s string) Value { return Value{kind: kindString, str: s} }

// Bytes returns a copy of b as a value.
func Bytes(b []byte) Value { return Value{kind: kindBytes, str: string(b)} }

// Timestamp returns a time given in nanoseconds since 1970-01-01 UTC.
func Timestamp(ns int64) Value { return Value{kind: kindTimestamp, bits: uint64(ns)} } //nolint:gosec // kept bit for bit

// IsNull reports whether the value is NULL.
func (v Value) IsNull() bool { return v.kind == kindNull }

// IsMaxValue reports whether the value is MAXVALUE.
func (v Value) IsMaxValue() bool { return v.kind == kindMax }

func (v Value) bool() bool     { return v.bits != 0 }
func (v Value) int() int64     { return int64(v.bits) } //nolint:gosec // kept bit for bit
func (v Value) float() float64 { return math.Float64frombits(v.bits) }
func (v Value) isNaN() bool    { return v.kind == kindFloat64 && math.IsNaN(v.float()) }
func (v Value) isNumber() bool {
	return v.kind == kindInt64 || v.kind == kindUint64 || v.kind == kindFloat64
}

// FromProto returns the value of a message; nil and an empty message are NULL. A value of a kind that this
// version doesn't know is ErrInvalidArgument.
func FromProto(m *metasrvpb.Value) (Value, error) {
	switch k := m.GetKind().(type) {
	case nil:
		if len(m.ProtoReflect().GetUnknown()) > 0 {
			return Value{}, metasrv.InvalidArgument("", "the value is of a kind that this version doesn't know")
		}
		return Null(), nil
	case *metasrvpb.Value_MaxValue:
		if !k.MaxValue {
			return Value{}, metasrv.InvalidArgument("max_value", "is false; leave it out, or give a value")
		}
		return MaxValue(), nil
	case *metasrvpb.Value_BoolValue:
		return Bool(k.BoolValue), nil
	case *metasrvpb.Value_Int64Value:
		return Int64(k.Int64Value), nil
	case *metasrvpb.Value_Uint64Value:
		return Uint64(k.Uint64Value), nil
	case *metasrvpb.Value_Float64Value:
		return Float64(k.Float64Value), nil
	case *metasrvpb.Value_StringValue:
		return String(k.StringValue), nil
	case *metasrvpb.Value_BytesValue:
		return Bytes(k.BytesValue), nil
	case *metasrvpb.Value_TimestampValue:
		return Timestamp(k.TimestampValue), nil
	}
	return Value{}, metasrv.InvalidArgument("", "the value is of a kind that this version doesn't know")
}

// Proto returns the value as a message; NULL is an empty one.
func (v Value) Proto() *metasrvpb.Value {
	m := &metasrvpb.Value{}
	switch v.kind {
	case kindMax:
		m.Kind = &metasrvpb.Value_MaxValue{MaxValue: true}
	case kindBool:
		m.Kind = &metasrvpb.Value_BoolValue{BoolValue: v.bool()}
	case kindInt64:
		m.Kind = &metasrvpb.Value_Int64Value{Int64Value: v.int()}
	case kindUint64:
		m.Kind = &metasrvpb.Value_Uint64Value{Uint64Value: v.bits}
	case kindFloat64:
		m.Kind = &metasrvpb.Value_Float64Value{Float64Value: v.float()}
	case kindString:
		m.Kind = &metasrvpb.Value_StringValue{StringValue: v.str}
	case kindBytes:
		m.Kind = &metasrvpb.Value_BytesValue{BytesValue: []byte(v.str)}
	case kindTimestamp:
		m.Kind = &metasrvpb.Value_TimestampValue{TimestampValue: v.int()}
	}
	return m
}

// String returns the value as people read it in SQL: NULL, 10, 'hz', x'00ff', MAXVALUE.
func (v Value) String() string {
	switch v.kind {
	case kindBool:
		return strconv.FormatBool(v.bool())
	case kindInt64:
		return strconv.FormatInt(v.int(), 10)
	case kindUint64:
		return strconv.FormatUint(v.bits, 10)
	case kindFloat64:
		return strconv.FormatFloat(v.float(), 'g', -1, 64)
	case kindString:
		return quote(v.str)
	case kindBytes:
		return "x'" + hex.EncodeToString([]byte(v.str)) + "'"
	case kindTimestamp:
		return "'" + time.Unix(0, v.int()).UTC().Format(time.RFC3339Nano) + "'"
	}
	return v.kind.String()
}

func quote(s string) string {
	q := strconv.Quote(s)
	q = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	return "'" + strings.ReplaceAll(q, "'", "''") + "'"
}
