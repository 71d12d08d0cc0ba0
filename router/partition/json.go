package partition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/metasrv/metasrv"
)

// EncodeJSON returns a bound in the JSON form of the early public protocol: {"Value":{"String":"hz"}},
// {"Value":"Null"} or "MaxValue". What JSON can't express (NaN, infinity, a string that is not UTF-8) is
// ErrInvalidArgument.
func EncodeJSON(v Value) ([]byte, error) {
	var inner any
	switch v.kind {
	case kindMax:
		return []byte(`"MaxValue"`), nil
	case kindNull:
		inner = "Null"
	case kindBool:
		inner = map[string]any{"Boolean": v.bool()}
	case kindInt64:
		inner = map[string]any{"Int64": v.int()}
	case kindUint64:
		inner = map[string]any{"UInt64": v.bits}
	case kindFloat64:
		if f := v.float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, metasrv.InvalidArgument("", "%s can't be written in JSON", v)
		}
		inner = map[string]any{"Float64": v.float()}
	case kindString:
		if !utf8.ValidString(v.str) {
			return nil, metasrv.InvalidArgument("", "%s is not UTF-8", v)
		}
		inner = map[string]any{"String": v.str}
	case kindBytes:
		inner = map[string]any{"Binary": numbers(v.str)}
	case kindTimestamp:
		inner = map[string]any{"Timestamp": timestampJSON{Value: v.int(), Unit: "Nanosecond"}}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(map[string]any{"Value": inner}); err != nil {
		return nil, metasrv.InvalidArgument("", "write %s as JSON: %s", v, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// timestampJSON is a time as the early public protocol writes it.
type timestampJSON struct {
	Value int64  `json:"value"`
	Unit  string `json:"unit"`
}

var nanosecondsOf = map[string]int64{"Second": 1e9, "Millisecond": 1e6, "Microsecond": 1e3, "Nanosecond": 1}

// numbers returns bytes as the list of numbers that Rust's serde writes them as.
func numbers(s string) []uint16 {
	n := make([]uint16, len(s))
	for i := range len(s) {
		n[i] = uint16(s[i])
	}
	return n
}

// DecodeJSON returns a bound from the JSON form of the early public protocol. Integers and floats of all widths
// become Int64, Uint64 and Float64, times of all units Timestamp. Everything else is ErrInvalidArgument:
// partitions of that protocol are opaque, and need not be in this form.
func DecodeJSON(b []byte) (Value, error) {
	v, err := decodeJSON(b)
	if err != nil {
		return Value{}, metasrv.InvalidArgument("", "no bound in JSON: %s", err)
	}
	return v, nil
}

func decodeJSON(b []byte) (Value, error) {
	// json replaces what is not UTF-8, and so would change the bound.
	if !utf8.Valid(b) {
		return Value{}, errors.New("not UTF-8")
	}
	var name string
	if json.Unmarshal(b, &name) == nil {
		if name == "MaxValue" {
			return MaxValue(), nil
		}
		return Value{}, fmt.Errorf("%q is not MaxValue", name)
	}
	key, inner, err := only(b)
	if err != nil {
		return Value{}, err
	}
	if key != "Value" {
		return Value{}, fmt.Errorf("%q is not Value", key)
	}
	if json.Unmarshal(inner, &name) == nil {
		if name == "Null" {
			return Null(), nil
		}
		return Value{}, fmt.Errorf("%q is not Null", name)
	}
	variant, payload, err := only(inner)
	if err != nil {
		return Value{}, err
	}
	return decodeVariant(variant, payload)
}

// only returns the only entry of an object.
func only(b []byte) (key string, value json.RawMessage, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return "", nil, err
	}
	if len(object) != 1 {
		return "", nil, fmt.Errorf("%d entries, not 1", len(object))
	}
	//purity:allow there is one entry
	for key, value = range object {
	}
	if string(value) == "null" {
		return "", nil, fmt.Errorf("%q is null", key)
	}
	return key, value, nil
}

func decodeVariant(variant string, b json.RawMessage) (Value, error) {
	switch variant {
	case "Boolean":
		return decodeAs(b, Bool)
	case "Int8":
		return decodeAs(b, func(i int8) Value { return Int64(int64(i)) })
	case "Int16":
		return decodeAs(b, func(i int16) Value { return Int64(int64(i)) })
	case "Int32":
		return decodeAs(b, func(i int32) Value { return Int64(int64(i)) })
	case "Int64":
		return decodeAs(b, Int64)
	case "UInt8":
		return decodeAs(b, func(u uint8) Value { return Uint64(uint64(u)) })
	case "UInt16":
		return decodeAs(b, func(u uint16) Value { return Uint64(uint64(u)) })
	case "UInt32":
		return decodeAs(b, func(u uint32) Value { return Uint64(uint64(u)) })
	case "UInt64":
		return decodeAs(b, Uint64)
	case "Float32":
		return decodeAs(b, func(f float32) Value { return Float64(float64(f)) })
	case "Float64":
		return decodeAs(b, Float64)
	case "String":
		return decodeAs(b, String)
	case "Binary":
		return decodeBinary(b)
	case "Timestamp":
		return decodeTimestamp(b)
	}
	return Value{}, fmt.Errorf("unknown type %q", variant)
}

func decodeAs[T any](b json.RawMessage, value func(T) Value) (Value, error) {
	var t T
	if err := json.Unmarshal(b, &t); err != nil {
		return Value{}, err
	}
	return value(t), nil
}

func decodeBinary(b json.RawMessage) (Value, error) {
	var list []uint16
	if err := json.Unmarshal(b, &list); err != nil {
		return Value{}, err
	}
	raw := make([]byte, len(list))
	for i, n := range list {
		if n > math.MaxUint8 {
			return Value{}, fmt.Errorf("%d is no byte", n)
		}
		raw[i] = byte(n)
	}
	return Bytes(raw), nil
}

func decodeTimestamp(b json.RawMessage) (Value, error) {
	var t timestampJSON
	if err := json.Unmarshal(b, &t); err != nil {
		return Value{}, err
	}
	unit, ok := nanosecondsOf[t.Unit]
	if !ok {
		return Value{}, fmt.Errorf("unknown unit of time %q", t.Unit)
	}
	ns := t.Value * unit
	if ns/unit != t.Value {
		return Value{}, fmt.Errorf("the time %d %s is out of range", t.Value, t.Unit)
	}
	return Timestamp(ns), nil
}
