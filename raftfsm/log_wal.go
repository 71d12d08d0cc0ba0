package raftfsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/metadb"
)

// LogStore says how a member keeps its log. Its data folder knows: it can't be changed.
type LogStore string

const (
	// LogStoreBolt is raft-boltdb: a B-tree in one file, two syncs an append.
	LogStoreBolt LogStore = "boltdb"
	// LogStoreWAL is raft-wal: segment files, one sync an append.
	LogStoreWAL LogStore = "wal"
)

// LogStoreError says that a data folder has another kind of log than was asked for.
type LogStoreError struct {
	Dir         string
	Have, Asked LogStore
}

func (e *LogStoreError) Error() string {
	return fmt.Sprintf("the log in %s is kept by %s, not by %s: ask for %s. A member can't change how it keeps its log; to have the other one, %s",
		e.Dir, e.Have, e.Asked, e.Have, replaceMember)
}

// checkLogStore returns a LogStoreError if a data folder has a log of another kind.
func checkLogStore(dir string, asked LogStore) error {
	for have, path := range map[LogStore]string{LogStoreBolt: boltLogPath(dir), LogStoreWAL: filepath.Join(walPath(dir), metadb.FileName)} {
		_, err := os.Stat(path)
		switch {
		case err == nil && have != asked:
			return &LogStoreError{Dir: dir, Have: have, Asked: asked}
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}
