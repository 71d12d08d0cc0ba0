package raftfsm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	walfs "github.com/hashicorp/raft-wal/fs"
)

// A segment is read in large steps, but never as it was before a write.
func TestSegmentIsNotReadAheadOnceItIsWritten(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "segment"), bytes.Repeat([]byte("old."), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := (&walFiles{VFS: walfs.New()}).OpenWriter(dir, "segment")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	read := func(at int64) string {
		b := make([]byte, 4)
		n, err := file.ReadAt(b, at)
		if n < len(b) {
			return err.Error()
		}
		return string(b)
	}
	if end, before := read(400), read(8); before != "old." || end != "EOF" {
		t.Errorf("read %q, and %q at the end", before, end)
	}
	if _, err := file.WriteAt([]byte("new."), 12); err != nil {
		t.Fatal(err)
	}
	if before, after := read(8), read(12); before != "old." || after != "new." {
		t.Errorf("read %q and %q after a write", before, after)
	}
}
