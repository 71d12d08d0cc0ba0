package partition

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// vector is a row with its hash, for those who write clients in other languages.
type vector struct {
	Types []string `json:"types"`
	// Values as EncodeJSON writes them.
	Values []json.RawMessage `json:"values"`
	// Encoding in hexadecimal digits.
	Encoding string `json:"encoding"`
	// Hash is the XXH64 of Encoding, in decimal digits.
	Hash string `json:"hash"`
	// Of16 is the partition by a rule of 16 partitions.
	Of16 int `json:"partition_of_16"`
}

// The hash must never change: rows are where it put them. Only new vectors may be added by -update.
func TestHashVectors(t *testing.T) {
	rows := []struct {
		columns []string
		values  []Value
	}{
		{[]string{"s"}, []Value{Null()}},
		{[]string{"b"}, []Value{Bool(false)}},
		{[]string{"b"}, []Value{Bool(true)}},
		{[]string{"i"}, []Value{Int64(0)}},
		{[]string{"i"}, []Value{Int64(-1)}},
		{[]string{"i"}, []Value{Int64(math.MinInt64)}},
		{[]string{"u"}, []Value{Uint64(1)}},
		{[]string{"u"}, []Value{Uint64(math.MaxUint64)}},
		{[]string{"f"}, []Value{Float64(0)}},
		{[]string{"f"}, []Value{Float64(math.Copysign(0, -1))}},
		{[]string{"f"}, []Value{Float64(1.5)}},
		{[]string{"s"}, []Value{String("")}},
		{[]string{"s"}, []Value{String("host-1")}},
		{[]string{"s"}, []Value{String("杭州, a string that is longer than one block of 32 bytes")}},
		{[]string{"x"}, []Value{Bytes([]byte{0, 1, 255})}},
		{[]string{"t"}, []Value{Timestamp(1_679_000_000_000_000_000)}},
		{[]string{"s", "i"}, []Value{String("host-1"), Int64(7)}},
		{[]string{"s", "s2"}, []Value{String("ab"), String("c")}},
		{[]string{"s", "s2"}, []Value{String("a"), String("bc")}},
		{[]string{"s", "i"}, []Value{Null(), Null()}},
	}
	wide := &metasrvpb.TableSchema{Columns: append(schema.Columns[:len(schema.Columns):len(schema.Columns)],
		&metasrvpb.Column{Name: "s2", Type: tStr})}
	var got []vector
	for _, row := range rows {
		p, err := New(hashRule(16, row.columns...), wide)
		if err != nil {
			t.Fatal(err)
		}
		n, err := p.Find(row.values...)
		if err != nil {
			t.Fatal(err)
		}
		v := vector{Of16: n, Hash: fmt.Sprint(hash(row.values)), Encoding: hex.EncodeToString(appendHashEncoding(nil, row.values))}
		for i, value := range row.values {
			b, err := EncodeJSON(value)
			if err != nil {
				t.Fatal(err)
			}
			v.Types, v.Values = append(v.Types, typeName(p.types[i])), append(v.Values, b)
		}
		got = append(got, v)
	}
	const file = "testdata/hash.json"
	if *update {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []vector
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		for k, raw := range want[i].Values {
			v, err := DecodeJSON(raw)
			if err != nil {
				t.Fatal(err)
			}
			want[i].Values[k], _ = EncodeJSON(v) // the file is indented
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The published value for no input, which is what a row without columns encodes to.
func TestHashIsXXH64(t *testing.T) {
	if got, want := hash(nil), uint64(0xef46db3751d8e999); got != want {
		t.Errorf("hash of nothing is %#x, want %#x", got, want)
	}
}

// Equal values hash alike, whatever type carried them.
func TestHashOfOtherLiterals(t *testing.T) {
	tests := []struct {
		column string
		values []Value
	}{
		{"i", []Value{Int64(5), Uint64(5), Float64(5)}},
		{"u", []Value{Int64(5), Uint64(5), Float64(5)}},
		{"f", []Value{Int64(5), Uint64(5), Float64(5)}},
		{"f", []Value{Int64(0), Float64(0), Float64(math.Copysign(0, -1))}},
		{"x", []Value{Bytes([]byte("a")), String("a")}},
	}
	for _, test := range tests {
		p := mustNew(t, hashRule(MaxPartitions, test.column))
		want, err := p.Find(test.values[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range test.values {
			if got, err := p.Find(v); err != nil || got != want {
				t.Errorf("%s %s in %s: got %d, %v, want %d", v.kind, v, test.column, got, err, want)
			}
		}
	}
}
