package main

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestParseTxn(t *testing.T) {
	got, err := parseTxn(`mod("a b") > "3"
value(c) = "x\ny"
create("d") = 0

put "k 1" "v 1" --prev-kv
del p/ --prefix
get k1 k9 --limit 3

get k --keys-only
`)
	if err != nil {
		t.Fatal(err)
	}
	want := &metasrvpb.TxnRequest{}
	if err := prototext.Unmarshal([]byte(`
		compare {key: "a b" operator: COMPARE_OPERATOR_GREATER mod_revision: 3}
		compare {key: "c" operator: COMPARE_OPERATOR_EQUAL value: "x\ny"}
		compare {key: "d" operator: COMPARE_OPERATOR_EQUAL create_revision: 0}
		success {put {key: "k 1" value: "v 1" prev_kv: true}}
		success {delete_range {key: "p/" range_end: "p0"}}
		success {range {key: "k1" range_end: "k9" limit: 3}}
		failure {range {key: "k" keys_only: true}}`), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for text, says := range map[string]string{
		"mod(a":                    "lacks a )",
		"mod a = 1":                "is no comparison",
		"mod(a) ~ 1":               "none of the operators",
		"mod(a) = x":               "is no number",
		"age(a) = 1":               "can't be compared",
		"mod(a) = 1 2":             "goes on behind",
		"\nput k":                  "put takes a key and a value",
		"\nmove a b":               "is no command of a transaction",
		"\nget":                    "takes a key",
		"\nget a b --prefix":       "END can't be given",
		"\nget a --nonsense":       "unknown flag",
		"\n\n\nget a":              "fourth part",
		"\nput \"unclosed value\"": "put takes a key and a value",
	} {
		if _, err := parseTxn(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want that it %s", text, err, says)
		}
	}
}

// Whatever is typed, it is a transaction or a mistake that is told.
func FuzzParseTxn(f *testing.F) {
	f.Add("mod(\"a\") > \"3\"\n\nput a b\n\nget a --prefix")
	f.Add("value(a) = 'x\n\ndel \"\\xff\" --from-key")
	f.Fuzz(func(t *testing.T, text string) {
		req, err := parseTxn(text)
		if (req == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", text, req, err)
		}
		_ = fmt.Sprint(err)
	})
}
