//go:build broken

package raftfsm

import (
	"os"

	"github.com/metasrv/metasrv/raftfsm/machine"
)

// broken reports whether this build has the fault: the one that the environment names. It is for the test of the
// check of histories only; no cluster may ever run it.
func broken(fault string) bool { return os.Getenv("METASRV_BROKEN") == fault }

// brokenCut returns what is written to the image as a cut: with the fault "cut" the values of the moment in which it is
// written, together with the index of the cut.
func brokenCut(f *fsm, cut *applied) *applied {
	if !broken("cut") {
		return cut
	}
	now := f.current.Load().view
	return &applied{
		view:               machine.NewView(cut.view.Position(), now.Ascend("", "")),
		configuration:      cut.configuration,
		configurationIndex: cut.configurationIndex,
	}
}
