package column

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/vitess/go/sqltypes"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"
)

// Timestamp is a stored time, in nanoseconds since 1970-01-01 UTC.
type Timestamp int64

var (
	minTime = time.Unix(0, math.MinInt64).UTC()
	maxTime = time.Unix(0, math.MaxInt64).UTC()
)

// Encode returns the stored value of v, a value that the SQL engine has converted to the column's MySQL type.
// The error says why v can't be stored.
func Encode(ctx context.Context, t metasrvpb.DataType, v any) (any, error) {
	v, err := sql.UnwrapAny(ctx, v)
	if err != nil || v == nil {
		return nil, err
	}
	switch t {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		return encodeBool(v)
	case metasrvpb.DataType_DATA_TYPE_INT64:
		if i, ok := signed(v); ok {
			return i, nil
		}
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		if u, ok := unsigned(v); ok {
			return u, nil
		}
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return encodeFloat(v)
	case metasrvpb.DataType_DATA_TYPE_STRING:
		if s, ok := v.(string); ok {
			return s, nil
		}
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		switch b := v.(type) {
		case []byte:
			return b, nil
		case string:
			return []byte(b), nil
		}
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		if d, ok := v.(time.Time); ok {
			return encodeTime(d)
		}
	}
	return nil, fmt.Errorf("a value of type %T can't be stored as %s", v, t)
}

func encodeBool(v any) (any, error) {
	switch b := v.(type) {
	case bool:
		return b, nil
	case int8:
		if b == 0 || b == 1 {
			return b == 1, nil
		}
	}
	return nil, fmt.Errorf("%v is no BOOLEAN: only 0 and 1 are", v)
}

func encodeFloat(v any) (any, error) {
	var f float64
	switch n := v.(type) {
	case float32:
		f = float64(n)
	case float64:
		f = n
	default:
		return nil, fmt.Errorf("a value of type %T can't be stored as a float", v)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v can't be stored", f)
	}
	return f, nil
}

func encodeTime(d time.Time) (any, error) {
	if d.Before(minTime) || d.After(maxTime) {
		return nil, fmt.Errorf("%s can't be stored: times are between %s and %s",
			d.Format(sql.TimestampDatetimeLayout), minTime.Format(time.DateOnly), maxTime.Format(time.DateOnly))
	}
	return Timestamp(d.UnixNano()), nil
}

func signed(v any) (int64, bool) {
	switch n := v.(type) {
	case int8:
		return int64(n), true
	case int16:
		return int64(n), true
	case int32:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

func unsigned(v any) (uint64, bool) {
	switch n := v.(type) {
	case uint8:
		return uint64(n), true
	case uint16:
		return uint64(n), true
	case uint32:
		return uint64(n), true
	case uint64:
		return n, true
	}
	return 0, false
}

// Decode returns the SQL engine's value of a stored one. A time is cut to the precision of its column: what is
// shown is what compares equal to it.
func Decode(t sql.Type, v any) (any, error) {
	switch s := v.(type) {
	case nil:
		return nil, nil
	case bool:
		if s {
			return int8(1), nil
		}
		return int8(0), nil
	case int64:
		return decodeSigned(t, s)
	case uint64:
		return decodeUnsigned(t, s)
	case float64:
		if t.Type() == sqltypes.Float32 {
			return float32(s), nil
		}
		return s, nil
	case Timestamp:
		return s.Floor(Unit(t)).Time(), nil
	}
	return v, nil
}

func decodeSigned(t sql.Type, v int64) (any, error) {
	var min, max int64 = math.MinInt64, math.MaxInt64
	switch t.Type() {
	case sqltypes.Int8:
		min, max = math.MinInt8, math.MaxInt8
	case sqltypes.Int16:
		min, max = math.MinInt16, math.MaxInt16
	case sqltypes.Int24, sqltypes.Int32:
		min, max = math.MinInt32, math.MaxInt32
	}
	if v < min || v > max {
		return nil, fmt.Errorf("stored value %d is no %s", v, t)
	}
	switch t.Type() {
	case sqltypes.Int8:
		return int8(v), nil
	case sqltypes.Int16:
		return int16(v), nil
	case sqltypes.Int24, sqltypes.Int32:
		return int32(v), nil
	}
	return v, nil
}

func decodeUnsigned(t sql.Type, v uint64) (any, error) {
	var max uint64 = math.MaxUint64
	switch t.Type() {
	case sqltypes.Uint8:
		max = math.MaxUint8
	case sqltypes.Uint16:
		max = math.MaxUint16
	case sqltypes.Uint24, sqltypes.Uint32:
		max = math.MaxUint32
	}
	if v > max {
		return nil, fmt.Errorf("stored value %d is no %s", v, t)
	}
	switch t.Type() {
	case sqltypes.Uint8:
		return uint8(v), nil
	case sqltypes.Uint16:
		return uint16(v), nil
	case sqltypes.Uint24, sqltypes.Uint32:
		return uint32(v), nil
	}
	return v, nil
}

// Unit returns the precision of a DATE, DATETIME or TIMESTAMP type: from a day to a microsecond.
func Unit(t sql.Type) time.Duration {
	d, ok := t.(sql.DatetimeType)
	switch {
	case !ok:
		return time.Microsecond
	case t.Type() == sqltypes.Date:
		return 24 * time.Hour
	}
	unit := time.Second
	for range d.Precision() {
		unit /= 10
	}
	return unit
}

// Floor returns the last multiple of unit that is not above ts. A time less than one unit above the smallest
// Timestamp is left as it is.
func (ts Timestamp) Floor(unit time.Duration) Timestamp {
	r := ts % Timestamp(unit)
	if r < 0 {
		r += Timestamp(unit)
	}
	if ts < math.MinInt64+r {
		return ts
	}
	return ts - r
}

// Time returns ts in UTC.
func (ts Timestamp) Time() time.Time { return time.Unix(0, int64(ts)).UTC() }

// Partition returns a stored value as router/partition takes it.
func Partition(v any) partition.Value {
	switch s := v.(type) {
	case bool:
		return partition.Bool(s)
	case int64:
		return partition.Int64(s)
	case uint64:
		return partition.Uint64(s)
	case float64:
		return partition.Float64(s)
	case string:
		return partition.String(s)
	case []byte:
		return partition.Bytes(s)
	case Timestamp:
		return partition.Timestamp(int64(s))
	}
	return partition.Null()
}
