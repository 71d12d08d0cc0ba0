package heartbeat

import (
	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// NodePrefix stands before the id in the key of a node's record.
	NodePrefix = "node/"
	// nodeEnd is the first key behind all node records: '0' follows '/'.
	nodeEnd        = "node0"
	incarnationKey = "seq/incarnation"
	// removedPrefix stands before the ids of nodes that were removed.
	removedPrefix = "removed-node/"
	// GroupPrefix stands before the name in the key of a group's record.
	GroupPrefix = "group/"
	groupEnd    = "group0"
)

func nodeKey(id metasrv.NodeID) string { return state.IDKey(NodePrefix, uint64(id)) }

func removedKey(id metasrv.NodeID) string { return state.IDKey(removedPrefix, uint64(id)) }
func groupKey(name string) string         { return GroupPrefix + name }
