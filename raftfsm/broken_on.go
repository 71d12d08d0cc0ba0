//go:build broken

package raftfsm

import "os"

// broken reports whether this build has the fault: the one that the environment names. It is for the test of the
// check of histories only; no cluster may ever run it.
func broken(fault string) bool { return os.Getenv("METASRV_BROKEN") == fault }
