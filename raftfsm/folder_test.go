package raftfsm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Something else under the name of one of the member's files is named, with what to do, whatever the kind of the log.
func TestOtherThingsUnderTheNamesOfFilesAreRefused(t *testing.T) {
	for _, name := range memberNames {
		for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
			c := newCluster(t, 0)
			c.servers, c.founders = []Server{{ID: "a", RaftAddr: "a:3003"}}, 1
			path := filepath.Join(c.folder(0), name)
			says := path + " is a folder, but must be a file"
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			if name == walName {
				says = path + " is a file, but must be a folder"
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg := c.config(0)
			cfg.LogStore = kind
			n, err := Open(cfg)
			if err == nil {
				_ = n.Close(context.Background())
			}
			if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "take it away") {
				t.Errorf("%s, log of %s: %v", name, kind, err)
			}
		}
	}
}
