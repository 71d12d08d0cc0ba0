package kv

import (
	"bytes"
	"testing"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func message(p *Pair) *storagepb.KvRecord {
	return &storagepb.KvRecord{CreateRevision: p.CreateRevision, ModRevision: p.ModRevision, Version: p.Version, Value: p.Value}
}

// Records are the bytes of the message, whatever they hold.
func FuzzEncodeRecord(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint64(3), []byte("value"))
	f.Add(uint64(0), uint64(1<<63), uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, create, mod, version uint64, value []byte) {
		p := &Pair{CreateRevision: create, ModRevision: mod, Version: version, Value: value}
		b := encodeRecord(p)
		if want := state.Encode(message(p)); !bytes.Equal(b, want) {
			t.Fatalf("encoded %x, want %x", b, want)
		}
		if cap(b) != len(b) {
			t.Errorf("%d bytes are kept for %d", cap(b), len(b))
		}
		var got Pair
		if err := decodeRecord(b, &got); err != nil || !bytes.Equal(state.Encode(message(&got)), b) {
			t.Fatalf("decoded %v, %v", got, err)
		}
	})
}

// Whatever bytes are found under a key, they are read as the message would be, or refused where it would be.
func FuzzDecodeRecord(f *testing.F) {
	f.Add(state.Encode(&storagepb.KvRecord{CreateRevision: 1, ModRevision: 300, Version: 3, Value: []byte("v")}))
	f.Add([]byte{0x08})
	f.Add([]byte{0x28, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got Pair
		err := decodeRecord(b, &got)
		want := &storagepb.KvRecord{}
		wantErr := state.Decode(b, want)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%x: %v, the message says %v", b, err, wantErr)
		}
		if err == nil && !bytes.Equal(state.Encode(message(&got)), state.Encode(want)) {
			t.Fatalf("%x: decoded %v, want %v", b, got, want)
		}
	})
}
