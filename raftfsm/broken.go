//go:build !broken

package raftfsm

// broken reports whether this build has a fault on purpose: none has but those with the tag broken, by which
// cmd/metasrv/sim shows that its check of histories finds what such a fault does.
func broken(string) bool { return false }

// brokenCut returns what is written to the image as a cut.
func brokenCut(_ *fsm, cut *applied) *applied { return cut }
