package machine

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// loaded returns the state that a member would load from the pairs of v.
func loaded(v *View) *View { return NewView(v.Position(), v.Ascend("", "")) }

// Rule 13: the hash that is kept command by command is that of the whole state, whatever was overwritten, deleted,
// refused, remembered and forgotten on the way.
func TestHashIsThatOfTheWholeState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(t)
		session := f.openSession()
		keys := rapid.SampledFrom([]string{"a", "b", "c", "other"})
		for sequence := range rapid.Uint64Range(1, 20).Draw(rt, "entries") {
			var commands []*storagepb.Command
			for range rapid.IntRange(1, 4).Draw(rt, "commands") {
				kind := rapid.SampledFrom([]storagepb.CommandKind{put, remove, putThenFail, count}).Draw(rt, "kind")
				commands = append(commands, command(kind, keys.Draw(rt, "key"), rapid.StringN(0, 3, 3).Draw(rt, "value")))
			}
			commands[0].Id = &storagepb.CommandId{Session: session, Sequence: sequence + 1, Acknowledged: sequence / 2}
			f.apply(commands...)
			if v := f.View(); v.Hash() != loaded(v).Hash() {
				rt.Fatalf("the hash is %016x, that of the whole state %016x", v.Hash(), loaded(v).Hash())
			}
		}
	})
}

// Whatever differs between two states shows in the hash.
func TestHashTellsStatesApart(t *testing.T) {
	pairs := map[string][]byte{"a": []byte("1"), "b": []byte("2"), "ab": {}}
	base := Position{Index: 3, Term: 2, Revision: 3, Now: 4}
	seen := map[uint64]string{}
	note := func(name string, pos Position, pairs map[string][]byte) {
		t.Helper()
		h := NewView(pos, maps.All(pairs)).Hash()
		if other, taken := seen[h]; taken {
			t.Errorf("%s has the hash of %s", name, other)
		}
		seen[h] = name
	}
	with := func(key string, value []byte) map[string][]byte {
		c := maps.Clone(pairs)
		c[key] = value
		return c
	}
	without := maps.Clone(pairs)
	delete(without, "ab")
	note("the state", base, pairs)
	note("another value", base, with("a", []byte("3")))
	note("an empty value", base, with("a", nil))
	note("a key more", base, with("c", nil))
	note("a key less", base, without)
	note("values exchanged", base, map[string][]byte{"a": []byte("2"), "b": []byte("1"), "ab": {}})
	note("key and value exchanged", base, map[string][]byte{"1": []byte("a"), "b": []byte("2"), "ab": {}})
	note("a border moved", base, map[string][]byte{"a": []byte("1"), "b": []byte("2a"), "b2": {}})
	note("another index", Position{Index: 4, Term: 2, Revision: 3, Now: 4}, pairs)
	note("another term", Position{Index: 3, Term: 3, Revision: 3, Now: 4}, pairs)
	note("another revision", Position{Index: 3, Term: 2, Revision: 4, Now: 4}, pairs)
	note("another time", Position{Index: 3, Term: 2, Revision: 3, Now: 5}, pairs)
}

func BenchmarkPairHash(b *testing.B) {
	value := make([]byte, 256)
	for b.Loop() {
		pairHash("kv/0123456789abcdef", value)
	}
}

func BenchmarkApplyPut(b *testing.B) {
	f := newFixture(b)
	value := make([]byte, 256)
	c := &storagepb.Command{Kind: put, Payload: state.Encode(&storagepb.Put{Key: []byte("0123456789abcdef"), Value: value})}
	entry := &storagepb.Entry{Version: EntryVersion}
	for range 100 {
		entry.Commands = append(entry.Commands, c)
	}
	data := state.Encode(entry)
	for b.Loop() {
		f.index++
		if _, err := f.Apply(f.index, 1, data); err != nil {
			b.Fatal(err)
		}
	}
}

// Builds may word a refusal otherwise: neither the hash nor the bound of a session tells them apart.
func TestHashLeavesOutTheWordsOfRefusals(t *testing.T) {
	stateOf := func(reason, message string) (hash, added, bytes uint64) {
		value := state.Encode(&storagepb.Result{Revision: 3, Refusal: &storagepb.Refusal{Reason: reason, Message: message}})
		var h Hasher
		h.Add([]byte(resultKey(1, 2)), value)
		v := NewView(Position{Index: 1}, maps.All(map[string][]byte{resultKey(1, 2): value}))
		return v.Hash(), h.At(v.Position()), resultBytes(value)
	}
	hash, added, bytes := stateOf("TABLE_NOT_FOUND", "there is no table")
	if h, a, b := stateOf("TABLE_NOT_FOUND", "no such table, create it first"); h != hash || a != added || b != bytes || h != a {
		t.Errorf("other words: hash %016x, added up %016x, %d bytes; want %016x, %016x, %d", h, a, b, hash, added, bytes)
	}
	if h, a, _ := stateOf("SCHEMA_NOT_FOUND", "there is no table"); h == hash || a == added {
		t.Error("another reason has the same hash")
	}
}
