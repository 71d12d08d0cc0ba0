package state

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// The messages that creating a table consists of have one message a replica, so they are coded by hand too. What the
// public protocol owns within them is left to protobuf.

// sizeRoute is sizeHot for these messages.
func sizeRoute(m proto.Message) (int, bool) {
	c := sizer{}
	switch m := m.(type) {
	case *storagepb.RouteRecord:
		c.route(m)
	case *storagepb.CreateTable:
		c.createTable(m)
	case *storagepb.CommitTable:
		c.commitTable(m)
	default:
		return 0, false
	}
	return c.n, !c.strange
}

// appendRoute is appendHot for these messages.
func appendRoute(b []byte, m proto.Message) []byte {
	switch m := m.(type) {
	case *storagepb.RouteRecord:
		return appendRouteRecord(b, m)
	case *storagepb.CreateTable:
		return appendCreateTable(b, m)
	case *storagepb.CommitTable:
		return appendCommitTable(b, m)
	}
	return b
}

// sizer adds up the size of a message.
type sizer struct {
	n int
	// strange: what is coded by hand has fields that this build doesn't know, or is missing.
	strange bool
}

func (c *sizer) varint(v uint64) { c.n += sizeVarint(v) }

// look notes whether a message can be coded by hand.
func (c *sizer) look(m proto.Message) {
	r := m.ProtoReflect()
	c.strange = c.strange || !r.IsValid() || len(r.GetUnknown()) > 0
}

// nested adds a message that protobuf encodes, where it is there.
func (c *sizer) nested(m proto.Message) {
	if m.ProtoReflect().IsValid() {
		c.n += 1 + protowire.SizeBytes(proto.Size(m))
	}
}

// message adds a message of the given size.
func (c *sizer) message(size int) { c.n += 1 + protowire.SizeBytes(size) }

// part adds a message that was added up apart.
func (c *sizer) part(p sizer) {
	c.message(p.n)
	c.strange = c.strange || p.strange
}

func (c *sizer) route(m *storagepb.RouteRecord) {
	if c.look(m); m == nil {
		return
	}
	c.varint(m.TableId)
	c.varint(m.RouteVersion)
	for _, region := range m.Regions {
		part := sizer{}
		part.region(region)
		c.part(part)
	}
}

func (c *sizer) region(m *storagepb.RegionRecord) {
	if c.look(m); m == nil {
		return
	}
	c.varint(m.RegionId)
	c.varint(uint64(m.PartitionNumber))
	c.nested(m.Partition)
	c.varint(m.LeaderEpoch)
	c.varint(m.ConfVersion)
	c.varint(m.LeaderReplicaId)
	for _, replica := range m.Replicas {
		if c.look(replica); replica != nil {
			c.message(replicaSize(replica))
		}
	}
}

func replicaSize(m *storagepb.ReplicaRecord) int {
	return sizeVarint(m.ReplicaId) + sizeVarint(m.NodeId) + sizeVarint(m.PlannedIncarnation) + sizeBool(m.InSync) + sizeBool(m.Dropped)
}

func (c *sizer) createTable(m *storagepb.CreateTable) {
	if c.look(m); m == nil {
		return
	}
	c.nested(m.Name)
	c.nested(m.Schema)
	c.nested(m.PartitionRule)
	c.n += sizeBytes(m.TableInfo)
	for _, region := range m.Regions {
		part := sizer{}
		part.plannedRegion(region)
		c.part(part)
	}
	c.varint(m.CreationToken)
	c.varint(m.CreationTimeoutMs)
	c.varint(uint64(m.WallTimeMs)) //nolint:gosec // as protobuf does
	c.n += sizeBool(m.Commit)
}

func (c *sizer) plannedRegion(m *storagepb.PlannedRegion) {
	if c.look(m); m == nil {
		return
	}
	c.nested(m.Partition)
	for _, replica := range m.Replicas {
		if c.look(replica); replica != nil {
			c.message(sizeVarint(replica.NodeId) + sizeVarint(replica.Incarnation))
		}
	}
}

func (c *sizer) commitTable(m *storagepb.CommitTable) {
	if c.look(m); m == nil {
		return
	}
	c.varint(m.TableId)
	c.varint(m.CreationToken)
	c.nested(m.Schema)
	for _, replica := range m.Replicas {
		if c.look(replica); replica != nil {
			c.message(committedSize(replica))
		}
	}
}

func committedSize(m *storagepb.CommittedReplica) int {
	return sizeVarint(m.RegionId) + sizeVarint(m.ReplicaId) + sizeVarint(m.NodeId) + sizeVarint(m.Incarnation)
}

// appendHead writes the tag and the length of a message.
func appendHead(b []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size)) //nolint:gosec // never negative
}

// appendNested writes a message as protobuf does, where it is there.
func appendNested(b []byte, field protowire.Number, m proto.Message) []byte {
	if !m.ProtoReflect().IsValid() {
		return b
	}
	b = appendHead(b, field, proto.Size(m))
	b, err := proto.MarshalOptions{Deterministic: true, UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		panic(encodeError(m, err))
	}
	return b
}

func appendRouteRecord(b []byte, m *storagepb.RouteRecord) []byte {
	b = appendVarint(b, 1, m.TableId)
	b = appendVarint(b, 2, m.RouteVersion)
	for _, region := range m.Regions {
		c := sizer{}
		c.region(region)
		b = appendRegion(appendHead(b, 3, c.n), region)
	}
	return b
}

func appendRegion(b []byte, m *storagepb.RegionRecord) []byte {
	b = appendVarint(b, 1, m.RegionId)
	b = appendVarint(b, 2, uint64(m.PartitionNumber))
	b = appendNested(b, 3, m.Partition)
	b = appendVarint(b, 4, m.LeaderEpoch)
	b = appendVarint(b, 5, m.ConfVersion)
	b = appendVarint(b, 6, m.LeaderReplicaId)
	for _, replica := range m.Replicas {
		b = appendHead(b, 7, replicaSize(replica))
		b = appendVarint(b, 1, replica.ReplicaId)
		b = appendVarint(b, 2, replica.NodeId)
		b = appendVarint(b, 3, replica.PlannedIncarnation)
		b = appendBool(b, 4, replica.InSync)
		b = appendBool(b, 5, replica.Dropped)
	}
	return b
}

func appendCreateTable(b []byte, m *storagepb.CreateTable) []byte {
	b = appendNested(b, 1, m.Name)
	b = appendNested(b, 2, m.Schema)
	b = appendNested(b, 3, m.PartitionRule)
	b = appendBytes(b, 4, m.TableInfo)
	for _, region := range m.Regions {
		c := sizer{}
		c.plannedRegion(region)
		b = appendNested(appendHead(b, 5, c.n), 1, region.Partition)
		for _, replica := range region.Replicas {
			b = appendHead(b, 2, sizeVarint(replica.NodeId)+sizeVarint(replica.Incarnation))
			b = appendVarint(b, 1, replica.NodeId)
			b = appendVarint(b, 2, replica.Incarnation)
		}
	}
	b = appendVarint(b, 6, m.CreationToken)
	b = appendVarint(b, 7, m.CreationTimeoutMs)
	b = appendVarint(b, 8, uint64(m.WallTimeMs)) //nolint:gosec // as protobuf does
	return appendBool(b, 9, m.Commit)
}

func appendCommitTable(b []byte, m *storagepb.CommitTable) []byte {
	b = appendVarint(b, 1, m.TableId)
	b = appendVarint(b, 2, m.CreationToken)
	b = appendNested(b, 3, m.Schema)
	for _, replica := range m.Replicas {
		b = appendHead(b, 4, committedSize(replica))
		b = appendVarint(b, 1, replica.RegionId)
		b = appendVarint(b, 2, replica.ReplicaId)
		b = appendVarint(b, 3, replica.NodeId)
		b = appendVarint(b, 4, replica.Incarnation)
	}
	return b
}

// nestedIn returns the messages in m that protobuf codes; nil ones too.
func nestedIn(m proto.Message) []proto.Message {
	var list []proto.Message
	switch m := m.(type) {
	case *storagepb.RouteRecord:
		for _, region := range m.GetRegions() {
			list = append(list, region.Partition)
		}
	case *storagepb.CreateTable:
		list = append(list, m.GetName(), m.GetSchema(), m.GetPartitionRule())
		for _, region := range m.GetRegions() {
			if region.Partition != nil {
				list = append(list, region.Partition)
			}
		}
	case *storagepb.CommitTable:
		list = append(list, m.GetSchema())
	}
	return list
}
