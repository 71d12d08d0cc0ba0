package raftfsm

import (
	"bytes"
	"io"
	"maps"
	"testing"

	"github.com/hashicorp/raft"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
)

func TestSnapshotStream(t *testing.T) {
	b := newBench(t)
	for range 500 {
		b.putNext()
	}
	b.put("empty", "")
	a := b.current.Load()
	var stream bytes.Buffer
	if err := snapshotOf(a).Write(&stream); err != nil {
		t.Fatal(err)
	}
	if size := snapshotOf(a).Size(); size != int64(stream.Len()) {
		t.Errorf("size is announced as %d, it is %d", size, stream.Len())
	}
	read := func(r io.Reader) (map[string]string, *storagepb.ImageMeta, error) {
		got := map[string]string{}
		var meta *storagepb.ImageMeta
		err := snapshot.Read(r,
			func(m *storagepb.ImageMeta) error { meta = m; return nil },
			func(k, v []byte) error { got[string(k)] = string(v); return nil })
		return got, meta, err
	}
	got, meta, err := read(bytes.NewReader(stream.Bytes()))
	if err != nil || meta.Index != a.index() || !maps.Equal(got, contentOf(a.view)) {
		t.Fatalf("read back index %d with %d keys, %v", meta.GetIndex(), len(got), err)
	}
	for i := range stream.Len() {
		damaged := bytes.Clone(stream.Bytes())
		damaged[i] ^= 0x20
		if _, _, err := read(bytes.NewReader(damaged)); err == nil {
			t.Fatalf("byte %d was changed unnoticed", i)
		}
	}
	for _, n := range []int{0, 5, 20, stream.Len() / 2, stream.Len() - 1} {
		if _, _, err := read(bytes.NewReader(stream.Bytes()[:n])); err == nil {
			t.Errorf("a stream cut off at %d was taken", n)
		}
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// Rule 11: an install never takes the state back.
func TestOlderSnapshotIsRefused(t *testing.T) {
	b := newBench(t)
	for range 10 {
		b.putNext()
	}
	store := &snapshotStore{fsm: b.fsm, flusher: b.flusher, dir: t.TempDir()}
	sink, err := store.Create(1, 9, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("metasrv")); err == nil {
		t.Error("a snapshot of index 9 was taken by a member that has applied 10")
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}
