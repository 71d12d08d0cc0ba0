package raftfsm

import (
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
)

// Snapshot returns the present state of this member, for a backup.
func (n *Node) Snapshot() snapshot.Snapshot { return snapshotOf(n.fsm.current.Load()) }

func snapshotOf(a *applied) snapshot.Snapshot {
	meta := a.meta()
	meta.Keys = uint64(a.view.Len()) //nolint:gosec // never negative
	meta.ClusterVersion = a.view.Position().Version
	cluster := machine.Cluster(a.view)
	meta.ClusterId, meta.ClusterIncarnation = cluster.GetClusterId(), cluster.GetIncarnation()
	return snapshot.Snapshot{Meta: meta, Pairs: a.view.Ascend("", "")}
}
