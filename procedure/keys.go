package procedure

import (
	"strconv"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// The records of this package: procedures that run, the last that ended, and what they have locked.
const (
	RunningPrefix = "procedure/run/"
	runningStop   = "procedure/run0"
	endedPrefix   = "procedure/end/"
	endedStop     = "procedure/end0"
	lockPrefix    = "procedure/lock/"
	lockStop      = "procedure/lock0"

	sequenceKey   = "seq/procedure"
	runningKey    = "seq/procedures-running"
	endedKey      = "seq/procedures-ended"
	firstSequence = 1
)

func runningID(id uint64) string { return state.IDKey(RunningPrefix, id) }

func endedID(id uint64) string { return state.IDKey(endedPrefix, id) }

func regionLock(id metasrv.RegionID) string {
	return state.IDKey(lockPrefix+"region/", uint64(id))
}

func nodeLock(id metasrv.NodeID) string { return state.IDKey(lockPrefix+"node/", uint64(id)) }

func tableLock(id metasrv.TableID) string { return state.IDKey(lockPrefix+"table/", uint64(id)) }

func encodeID(id uint64) []byte { return strconv.AppendUint(nil, id, 10) }

func decodeID(value []byte) uint64 {
	id, _ := strconv.ParseUint(string(value), 10, 64)
	return id
}
