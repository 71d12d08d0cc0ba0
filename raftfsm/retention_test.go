package raftfsm

import "testing"

// Small entries are kept by number, large ones by their bytes.
func TestLogIsKeptByBytesToo(t *testing.T) {
	r := LogRetention{Trailing: 100_000, Threshold: 50_000, Bytes: 1 << 30}
	for _, tt := range []struct{ entryBytes, trailing, threshold uint64 }{
		{0, 100_000, 50_000},
		{300, 100_000, 50_000},
		{64 << 10, 16384, 8192},
		{1 << 20, 1024, 512},
		{32 << 20, minTrailing, minTrailing / 2},
	} {
		if trailing, threshold := r.of(tt.entryBytes); trailing != tt.trailing || threshold != tt.threshold {
			t.Errorf("of entries of %d bytes %d and %d are kept, want %d and %d", tt.entryBytes, trailing, threshold, tt.trailing, tt.threshold)
		}
	}
}
