package machine

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// treeModel is what a tree should be.
type treeModel struct {
	tree  *tree
	pairs map[string]string
}

func (m *treeModel) check(t interface{ Fatalf(string, ...any) }, from string) {
	if got := m.tree.Len(); got != len(m.pairs) {
		t.Fatalf("%d keys, want %d", got, len(m.pairs))
	}
	for key, want := range m.pairs {
		if got, ok := m.tree.Get(key); !ok || string(got) != want {
			t.Fatalf("%q is %q (%t), want %q", key, got, ok, want)
		}
	}
	want := slices.DeleteFunc(slices.Sorted(maps.Keys(m.pairs)), func(key string) bool { return key < from })
	var got []string
	m.tree.Ascend(from, func(key string, value []byte) bool {
		if string(value) != m.pairs[key] {
			t.Fatalf("from %q: %q is %q, want %q", from, key, value, m.pairs[key])
		}
		got = append(got, key)
		return true
	})
	if !slices.Equal(got, want) {
		t.Fatalf("from %q: %q, want %q", from, got, want)
	}
	checkPages(t, m.tree.root)
}

// checkPages checks what searches rely on.
func checkPages(t interface{ Fatalf(string, ...any) }, p *page) {
	if p == nil {
		return
	}
	for i := range int(p.n) {
		if p.keys[i][:p.skip] != p.keys[0][:p.skip] || p.heads[i] != headOf(p.keys[i], int(p.skip)) {
			t.Fatalf("key %q of a page that begins with %q, %d bytes in common", p.keys[i], p.keys[0], p.skip)
		}
	}
	for i := int(p.n); i < pageKeys; i++ {
		if p.keys[i] != "" || p.values[i] != nil || p.children != nil && p.children[i+1] != nil {
			t.Fatalf("a page of %d keys keeps what was at %d", p.n, i)
		}
	}
	for i := 0; p.children != nil && i <= int(p.n); i++ {
		checkPages(t, p.children[i])
	}
}

// A head has the eight bytes behind the first ones, with zeros for those that are missing.
func TestHeadOf(t *testing.T) {
	for length := range 20 {
		key := "abcdefghijklmnopqrstuvwxyz"[:length]
		for skip := range 22 {
			padded := key + string(make([]byte, 40))
			want := binary.BigEndian.Uint64([]byte(padded[skip:]))
			if got := headOf(key, skip); got != want {
				t.Errorf("behind %d bytes of %q: %016x, want %016x", skip, key, got, want)
			}
		}
	}
}

// keyIn draws keys that share beginnings of all lengths, with zeros at their ends, and now and then one that doesn't.
func keyIn(t *rapid.T) string {
	switch rapid.IntRange(0, 9).Draw(t, "form") {
	case 0:
		return rapid.StringN(0, 3, 12).Draw(t, "any")
	case 1:
		return "kv/" + string(make([]byte, rapid.IntRange(0, 20).Draw(t, "zeros")))
	case 2:
		return fmt.Sprintf("kv/a/common/beginning/%d", rapid.IntRange(0, 999).Draw(t, "n"))
	}
	return fmt.Sprintf("kv/%08d", rapid.IntRange(0, 1999).Draw(t, "n"))
}

func TestTreeIsAnOrderedMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &treeModel{tree: newTree(), pairs: make(map[string]string)}
		var copies []*treeModel
		set := func(key string) {
			value := fmt.Sprint(rapid.IntRange(0, 99).Draw(t, "value"))
			prev, existed := m.tree.Set(key, []byte(value))
			if want, ok := m.pairs[key]; ok != existed || want != string(prev) {
				t.Fatalf("%q was %q (%t), want %q (%t)", key, prev, existed, want, ok)
			}
			m.pairs[key] = value
		}
		remove := func(key string) {
			prev, existed := m.tree.Delete(key)
			if want, ok := m.pairs[key]; ok != existed || want != string(prev) {
				t.Fatalf("%q was %q (%t), want %q (%t)", key, prev, existed, want, ok)
			}
			delete(m.pairs, key)
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":    func(t *rapid.T) { set(keyIn(t)) },
			"delete": func(t *rapid.T) { remove(keyIn(t)) },
			"set many": func(t *rapid.T) {
				first, step := rapid.IntRange(0, 1999).Draw(t, "first"), rapid.SampledFrom([]int{1, -1, 7}).Draw(t, "step")
				for i := range 200 {
					set(fmt.Sprintf("kv/%08d", max(0, first+i*step)))
				}
			},
			"delete many": func(t *rapid.T) {
				keys := slices.Sorted(maps.Keys(m.pairs))
				from := rapid.IntRange(0, len(keys)).Draw(t, "from")
				for _, key := range keys[from:min(len(keys), from+300)] {
					remove(key)
				}
			},
			"copy": func(*rapid.T) {
				copies = append(copies, &treeModel{tree: m.tree.Copy(), pairs: maps.Clone(m.pairs)})
				if len(copies) > 3 {
					copies = copies[1:]
				}
			},
			"": func(t *rapid.T) {
				m.check(t, keyIn(t))
				for _, c := range copies {
					c.check(t, "")
				}
			},
		})
	})
}

// Every copy can be changed, and none sees what is done to another one.
func TestTreeCopiesAreApart(t *testing.T) {
	first := &treeModel{tree: newTree(), pairs: make(map[string]string)}
	models := []*treeModel{first}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 8 {
		for i, m := range models {
			for range 500 {
				key, value := fmt.Sprintf("k%04d", random.IntN(3000)), fmt.Sprint(round, i)
				if random.IntN(3) == 0 {
					m.tree.Delete(key)
					delete(m.pairs, key)
					continue
				}
				m.tree.Set(key, []byte(value))
				m.pairs[key] = value
			}
		}
		if len(models) < 6 {
			m := models[random.IntN(len(models))]
			models = append(models, &treeModel{tree: m.tree.Copy(), pairs: maps.Clone(m.pairs)})
		}
		for _, m := range models {
			m.check(t, "")
		}
	}
}

// Keys in order fill pages, else a restart would need twice the memory.
func TestTreeLoadedInOrderIsFull(t *testing.T) {
	tree, keys, pages := newTree(), 100_000, 0
	for i := range keys {
		tree.Set(fmt.Sprintf("kv/%08d", i), nil)
	}
	var count func(*page)
	count = func(p *page) {
		pages++
		for i := 0; p.children != nil && i <= int(p.n); i++ {
			count(p.children[i])
		}
	}
	count(tree.root)
	if most := keys/pageKeys*11/10 + 10; pages > most {
		t.Errorf("%d pages for %d keys, want at most %d", pages, keys, most)
	}
	if size := unsafe.Sizeof(page{}); size > 1792 {
		t.Errorf("a page has %d bytes: Go makes 2,048 of it", size)
	}
}

func BenchmarkTreeGetAndSet(b *testing.B) {
	const keys = 200_000
	tree := newTree()
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("kv/metactl-bench/%08d", i)
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(keys) {
		tree.Set(names[i], make([]byte, 8))
	}
	random, value := rand.New(rand.NewPCG(3, 4)), make([]byte, 8)
	b.ResetTimer()
	for range b.N {
		key := names[random.IntN(keys)]
		tree.Get(key)
		tree.Set(key, value)
	}
}
