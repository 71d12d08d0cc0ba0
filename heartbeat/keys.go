package heartbeat

import (
	"fmt"

	"github.com/metasrv/metasrv"
)

const (
	// NodePrefix stands before the id in the key of a node's record.
	NodePrefix = "node/"
	// nodeEnd is the first key behind all node records: '0' follows '/'.
	nodeEnd        = "node0"
	incarnationKey = "seq/incarnation"
)

func nodeKey(id metasrv.NodeID) string { return fmt.Sprintf(NodePrefix+"%016x", uint64(id)) }
