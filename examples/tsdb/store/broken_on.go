//go:build broken

package store

import "os"

// broken reports whether this build lacks a fence: the one that the environment names. It is for make chaos only; no cluster
// may ever run it.
func broken(fence string) bool { return os.Getenv("TSDB_BROKEN") == fence }
