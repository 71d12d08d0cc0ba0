package metasrv

import (
	"strconv"
)

// NodeID names a datanode or a frontend. Nodes choose it themselves; 0 names none.
type NodeID uint64

func (id NodeID) String() string { return strconv.FormatUint(uint64(id), 10) }

// FirstTableID is the id of the first table of a cluster; lower ones are left for system tables.
const FirstTableID TableID = 1024

// TableID names a table for ever: it is never used twice in a cluster. 32 bits of it are used.
type TableID uint64

func (id TableID) String() string { return strconv.FormatUint(uint64(id), 10) }

// RegionID names a region: table id << 32 | region number.
type RegionID uint64

// NewRegionID returns the id of a table's region with the given number.
func NewRegionID(table TableID, number uint32) RegionID {
	return RegionID(uint64(table)<<32 | uint64(number))
}

// Table returns the id of the region's table.
func (id RegionID) Table() TableID { return TableID(id >> 32) }

// Number returns the region's number in its table.
func (id RegionID) Number() uint32 { return uint32(id) } //nolint:gosec // the lower half is what is asked for

// String returns the id as people read it: "1024/3" is region 3 of table 1024.
func (id RegionID) String() string {
	return strconv.FormatUint(uint64(id.Table()), 10) + "/" + strconv.FormatUint(uint64(id.Number()), 10)
}

// ReplicaID names a copy of a region on a datanode for ever: it is never used twice in a cluster.
type ReplicaID uint64

func (id ReplicaID) String() string { return strconv.FormatUint(uint64(id), 10) }

// Registration is what a node's present registration says of it as the keeper of replicas.
type Registration struct {
	Incarnation Incarnation
	// StorageGeneration rises when the node comes back with other storage: replicas of a lower one are lost.
	StorageGeneration uint64
	// KeepsLeases: the node acknowledges writes to each region only under a lease. A region leader on a node that doesn't
	// may go on whatever is decided elsewhere.
	KeepsLeases bool
	// Draining: the node gets no replicas, it is being drained or was.
	Draining bool
	// Group is that of the node, "" where it is in none. A group sees to its own replicas, and has one writer.
	Group string
	// GroupWriter: the node is the writer of its group.
	GroupWriter bool
}

// Incarnation names one registration of a node. It rises with every registration in the cluster.
type Incarnation uint64
