package snapshot

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func TestNothingMayFollowTheEnd(t *testing.T) {
	var b bytes.Buffer
	if err := written(map[string][]byte{"a": []byte("1"), "b": nil}).Write(&b); err != nil {
		t.Fatal(err)
	}
	ignore := func(_, _ []byte) error { return nil }
	begin := func(*storagepb.ImageMeta) error { return nil }
	if err := Read(bytes.NewReader(b.Bytes()), begin, ignore); err != nil {
		t.Errorf("a whole snapshot: %v", err)
	}
	b.WriteByte('x')
	if err := Read(&b, begin, ignore); !errors.Is(err, ErrDamaged) {
		t.Errorf("a snapshot with something behind it: %v", err)
	}
}

// What a later build wrote is not taken for damage, although it has fields that this one doesn't know.
func TestLaterVersionIsNamed(t *testing.T) {
	meta := &storagepb.ImageMeta{Version: Version + 1}
	meta.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	snap := Snapshot{Meta: meta, Pairs: maps.All(map[string][]byte{})}
	var b bytes.Buffer
	if err := snap.Write(&b); err != nil {
		t.Fatal(err)
	}
	err := Read(&b, func(*storagepb.ImageMeta) error { return nil }, func(_, _ []byte) error { return nil })
	if !errors.Is(err, ErrVersion) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 3") {
		t.Errorf("a snapshot of a later version: %v", err)
	}
	meta.Version = Version
	if _, err := DecodeMeta(state.Encode(meta)); err == nil || errors.Is(err, ErrVersion) {
		t.Errorf("a meta record of this version with an unknown field: %v", err)
	}
}

func written(pairs map[string][]byte) Snapshot {
	return Snapshot{
		Meta: &storagepb.ImageMeta{Version: Version, Index: 7, Keys: uint64(len(pairs))},
		Pairs: func(yield func(string, []byte) bool) {
			for _, key := range slices.Sorted(maps.Keys(pairs)) {
				if !yield(key, pairs[key]) {
					return
				}
			}
		},
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := written(map[string][]byte{"a": []byte("1")}).Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, data []byte) {
		// Only must not panic or take memory beyond the input's size times a constant.
		_ = Read(bytes.NewReader(data),
			func(*storagepb.ImageMeta) error { return nil }, func(_, _ []byte) error { return nil })
	})
}
