package partition

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestJSONRoundTrip(t *testing.T) {
	for _, v := range everyKind {
		b, err := EncodeJSON(v)
		if err != nil {
			t.Errorf("encode %s: %v", v, err)
			continue
		}
		if got, err := DecodeJSON(b); err != nil || got != v {
			t.Errorf("%s came back from %s as %s, %v", v, b, got, err)
		}
	}
}

func TestJSON(t *testing.T) {
	tests := []struct {
		value Value
		json  string
	}{
		{MaxValue(), `"MaxValue"`},
		{Null(), `{"Value":"Null"}`},
		{String("hz"), `{"Value":{"String":"hz"}}`},
		{String("<&>"), `{"Value":{"String":"<&>"}}`},
		{Int64(10), `{"Value":{"Int64":10}}`},
		{Uint64(math.MaxUint64), `{"Value":{"UInt64":18446744073709551615}}`},
		{Float64(0.5), `{"Value":{"Float64":0.5}}`},
		{Bool(true), `{"Value":{"Boolean":true}}`},
		{Bytes([]byte{1, 255}), `{"Value":{"Binary":[1,255]}}`},
		{Timestamp(5), `{"Value":{"Timestamp":{"value":5,"unit":"Nanosecond"}}}`},
	}
	for _, test := range tests {
		if got, err := EncodeJSON(test.value); err != nil || string(got) != test.json {
			t.Errorf("got %s, %v, want %s", got, err, test.json)
		}
	}
	for _, v := range []Value{Float64(math.NaN()), Float64(math.Inf(1)), String("\xff")} {
		if b, err := EncodeJSON(v); !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%s: got %s, %v", v, b, err)
		}
	}
}

func TestDecodeJSON(t *testing.T) {
	tests := []struct {
		json string
		want Value
	}{
		{`{"Value":{"Int32":10}}`, Int64(10)},
		{`{"Value":{"Int8":-128}}`, Int64(-128)},
		{`{"Value":{"UInt16":65535}}`, Uint64(65535)},
		{`{"Value":{"Int64":9007199254740993}}`, Int64(9007199254740993)},
		{`{"Value":{"Float32":1.5}}`, Float64(1.5)},
		{` { "Value" : { "String" : "\u006dz" } } `, String("mz")},
		{`{"Value":{"Timestamp":{"value":-2,"unit":"Second"}}}`, Timestamp(-2e9)},
	}
	for _, test := range tests {
		if got, err := DecodeJSON([]byte(test.json)); err != nil || got != test.want {
			t.Errorf("%s: got %s, %v, want %s", test.json, got, err, test.want)
		}
	}
}

func TestDecodeJSONRefuses(t *testing.T) {
	for _, s := range []string{
		"", "k1", `"k1"`, "10", "null", "[]", "{}", `"MaxValue" x`, `{"Value":null}`, `{"Value":{}}`, `{"value":"Null"}`,
		`{"Value":{"Int8":128}}`, `{"Value":{"Int64":1.5}}`, `{"Value":{"UInt8":-1}}`, `{"Value":{"Int64":null}}`,
		`{"Value":{"Int64":1,"String":"a"}}`, `{"Value":{"Date":1}}`, `{"Value":{"Binary":[256]}}`,
		`{"Value":{"Timestamp":{"value":9223372036854775807,"unit":"Second"}}}`,
		`{"Value":{"Timestamp":{"value":1,"unit":"Fortnight"}}}`, `{"Value":{"Float64":1e400}}`,
		"{\"Value\":{\"String\":\"\xff\"}}", `{"Value":{"Int64":"1"}}`,
	} {
		if v, err := DecodeJSON([]byte(s)); !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%s: got %s, %v", s, v, err)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, v := range everyKind {
		b, err := EncodeJSON(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"Value":{"Timestamp":{"value":-2,"unit":"Second"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeJSON(b)
		if err != nil {
			if !errors.Is(err, metasrv.ErrInvalidArgument) {
				t.Fatalf("got %v", err)
			}
			return
		}
		again, err := EncodeJSON(v)
		if err != nil {
			t.Fatalf("%s decoded as %s, which can't be encoded: %v", b, v, err)
		}
		if back, err := DecodeJSON(again); err != nil || back != v {
			t.Fatalf("%s decoded as %s, then as %s, %v", b, v, back, err)
		}
	})
}

func TestCompat(t *testing.T) {
	p := mustNew(t, rangeRule([]string{"s", "i"}, bound(String("hz"), Int64(10)), bound(MaxValue(), MaxValue())))
	want := &metasrvpb.Partition{
		ColumnList: [][]byte{[]byte("s"), []byte("i")},
		ValueList:  [][]byte{[]byte(`{"Value":{"String":"hz"}}`), []byte(`{"Value":{"Int64":10}}`)},
	}
	if diff := cmp.Diff(want, p.Compat(0), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	want.ValueList = [][]byte{[]byte(`"MaxValue"`), []byte(`"MaxValue"`)}
	if diff := cmp.Diff(want, p.Compat(1), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got := mustNew(t, hashRule(4, "s")).Compat(0); got != nil {
		t.Errorf("got %v for a hash rule", got)
	}
}
