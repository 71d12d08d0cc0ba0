package client

import (
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// methodKind says what a retry of an RPC may do.
type methodKind int

const (
	// once: the RPC is not known here, so it is sent again only where it surely was not executed.
	once methodKind = iota
	// read: executing it twice changes nothing.
	read
	// write: executed once under a request id, which the client fills in.
	write
	// repeatable: a write that may be executed twice without harm and takes no request id.
	repeatable
	// stream: its messages are not retried by Invoke.
	stream
)

// methods has every RPC of metasrv.v1. TestMethodsAreComplete fails for one that is missing.
//
// An id costs two more records, so it is for what a second execution would do otherwise: creates, drops, alterations,
// transactions, comparisons, moves, deletions of ranges, and puts that return what was there before. Puts and deletions of
// named keys have one only with Once: repeated, they write the same again. Registrations carry a token of their own, and what
// Maintenance does can be repeated.
var methods = map[string]methodKind{
	metasrvpb.Catalog_CreateCatalog_FullMethodName: write,
	metasrvpb.Catalog_GetCatalog_FullMethodName:    read,
	metasrvpb.Catalog_ListCatalogs_FullMethodName:  read,
	metasrvpb.Catalog_DropCatalog_FullMethodName:   write,
	metasrvpb.Catalog_CreateSchema_FullMethodName:  write,
	metasrvpb.Catalog_GetSchema_FullMethodName:     read,
	metasrvpb.Catalog_ListSchemas_FullMethodName:   read,
	metasrvpb.Catalog_DropSchema_FullMethodName:    write,
	metasrvpb.Catalog_GetTable_FullMethodName:      read,
	metasrvpb.Catalog_ListTables_FullMethodName:    read,
	metasrvpb.Catalog_AlterTable_FullMethodName:    write,
	metasrvpb.Catalog_RenameTable_FullMethodName:   write,
	metasrvpb.Catalog_CommitTable_FullMethodName:   write,
	metasrvpb.Catalog_AbortTable_FullMethodName:    write,
	metasrvpb.Catalog_Watch_FullMethodName:         stream,

	metasrvpb.Router_Create_FullMethodName: write,
	metasrvpb.Router_Route_FullMethodName:  read,
	metasrvpb.Router_Delete_FullMethodName: write,
	metasrvpb.Router_Watch_FullMethodName:  stream,

	metasrvpb.Store_Range_FullMethodName:         read,
	metasrvpb.Store_Put_FullMethodName:           write,
	metasrvpb.Store_BatchGet_FullMethodName:      read,
	metasrvpb.Store_BatchPut_FullMethodName:      write,
	metasrvpb.Store_BatchDelete_FullMethodName:   write,
	metasrvpb.Store_CompareAndPut_FullMethodName: write,
	metasrvpb.Store_DeleteRange_FullMethodName:   write,
	metasrvpb.Store_MoveValue_FullMethodName:     write,
	metasrvpb.Store_Txn_FullMethodName:           write,
	metasrvpb.Store_Watch_FullMethodName:         stream,

	metasrvpb.Lock_Lock_FullMethodName:   write,
	metasrvpb.Lock_Unlock_FullMethodName: repeatable,
	// A holder whose id never arrived is gone after its time.
	metasrvpb.Lock_OpenHolder_FullMethodName:  repeatable,
	metasrvpb.Lock_KeepHolder_FullMethodName:  repeatable,
	metasrvpb.Lock_CloseHolder_FullMethodName: repeatable,
	metasrvpb.Lock_ListLocks_FullMethodName:   read,

	metasrvpb.Election_Campaign_FullMethodName: repeatable,
	metasrvpb.Election_Proclaim_FullMethodName: write,
	metasrvpb.Election_Resign_FullMethodName:   repeatable,
	metasrvpb.Election_Leader_FullMethodName:   read,
	metasrvpb.Election_Observe_FullMethodName:  stream,

	metasrvpb.Cluster_Status_FullMethodName:      read,
	metasrvpb.Cluster_ListMembers_FullMethodName: read,
	metasrvpb.Cluster_WatchNodes_FullMethodName:  stream,
	metasrvpb.Cluster_ListNodes_FullMethodName:   read,
	metasrvpb.Cluster_GetNode_FullMethodName:     read,
	metasrvpb.Cluster_ListRegions_FullMethodName: read,
	metasrvpb.Cluster_Stats_FullMethodName:       read,
	// A session whose id never arrived leaves one small record behind.
	metasrvpb.Cluster_OpenSession_FullMethodName:  repeatable,
	metasrvpb.Cluster_CloseSession_FullMethodName: repeatable,
	metasrvpb.Cluster_GetConfig_FullMethodName:    read,
	metasrvpb.Cluster_Configure_FullMethodName:    write,

	metasrvpb.Cluster_GetRegion_FullMethodName:        read,
	metasrvpb.Cluster_StartProcedure_FullMethodName:   write,
	metasrvpb.Cluster_ListProcedures_FullMethodName:   read,
	metasrvpb.Cluster_GetProcedure_FullMethodName:     read,
	metasrvpb.Cluster_CancelProcedure_FullMethodName:  write,
	metasrvpb.Cluster_UndrainNode_FullMethodName:      write,
	metasrvpb.Cluster_ListGroups_FullMethodName:       read,
	metasrvpb.Cluster_ElectGroupWriter_FullMethodName: write,

	metasrvpb.Maintenance_Snapshot_FullMethodName: stream,
	// Each of these changes nothing where it was done before.
	metasrvpb.Maintenance_Hash_FullMethodName:               read,
	metasrvpb.Maintenance_Sessions_FullMethodName:           read,
	metasrvpb.Maintenance_ConfigureSessions_FullMethodName:  repeatable,
	metasrvpb.Maintenance_AddMember_FullMethodName:          repeatable,
	metasrvpb.Maintenance_PromoteMember_FullMethodName:      repeatable,
	metasrvpb.Maintenance_RemoveMember_FullMethodName:       repeatable,
	metasrvpb.Maintenance_UpdateMember_FullMethodName:       repeatable,
	metasrvpb.Maintenance_TransferLeadership_FullMethodName: repeatable,
	metasrvpb.Maintenance_Quarantine_FullMethodName:         read,
	metasrvpb.Maintenance_EndQuarantine_FullMethodName:      repeatable,

	metasrvpb.Heartbeat_Heartbeat_FullMethodName: stream,
	metasrvpb.Heartbeat_AskLeader_FullMethodName: read,
}

// heard are the reads of what only the metasrv leader knows.
var heard = map[string]bool{
	metasrvpb.Cluster_ListNodes_FullMethodName:   true,
	metasrvpb.Cluster_GetNode_FullMethodName:     true,
	metasrvpb.Cluster_ListRegions_FullMethodName: true,
	metasrvpb.Cluster_ListGroups_FullMethodName:  true,
	metasrvpb.Cluster_Stats_FullMethodName:       true,

	metasrvpb.Cluster_GetRegion_FullMethodName:      true,
	metasrvpb.Cluster_ListProcedures_FullMethodName: true,
	metasrvpb.Cluster_GetProcedure_FullMethodName:   true,
}

// firstAsked returns where a call begins.
func (c *Client) firstAsked(method string, kind methodKind, request proto.Message) first {
	stale := isStale(request)
	switch {
	case !stale && (kind != read || heard[method] || c.cfg.ReadFrom == ReadFromLeader):
		return firstLeader
	case c.cfg.ReadFrom == ReadFromNearest:
		return firstNearest
	}
	return firstInTurn
}

// methodKindOf returns what a retry of a request may do, which for some RPCs depends on what it asks.
//
// To write the same values again changes nothing by itself, so such a request needs no id, which would cost the cluster
// two more records. But where its answer was lost and it is sent again, others may see its value, then a later one of
// theirs, then its value again. Whoever must exclude that gives Once, or compares in a transaction.
func methodKindOf(method string, request proto.Message, opts []grpc.CallOption) methodKind {
	kind := methods[method]
	if kind != write || headerOf(request).GetRequestId() != nil || slices.ContainsFunc(opts, isOnce) {
		return kind
	}
	switch r := request.(type) {
	case *metasrvpb.LockRequest:
		if r.GetHolder() != 0 { // has one claim on a name, however often it asks
			return repeatable
		}
	case *metasrvpb.PutRequest:
		if !r.GetPrevKv() {
			return repeatable
		}
	case *metasrvpb.BatchPutRequest:
		if !r.GetPrevKv() {
			return repeatable
		}
	case *metasrvpb.BatchDeleteRequest:
		if !r.GetPrevKv() {
			return repeatable
		}
	case *metasrvpb.TxnRequest:
		if readsOnly(r) {
			return read
		}
	}
	return kind
}

// readsOnly reports whether nothing in a transaction writes.
func readsOnly(r *metasrvpb.TxnRequest) bool {
	for _, list := range [][]*metasrvpb.TxnOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range list {
			if op.GetRange() == nil {
				return false
			}
		}
	}
	return true
}

// Once returns a call option for Store.Put, BatchPut and BatchDelete: the write is executed at most once, as other
// writes are, even where its answer is lost. It costs the cluster more.
func Once() grpc.CallOption { return onceOption{} }

type onceOption struct{ grpc.EmptyCallOption }

func isOnce(o grpc.CallOption) bool {
	_, ok := o.(onceOption)
	return ok
}

const headerField = protoreflect.Name("header")

// headerOf returns the request header of m, nil where m has none.
func headerOf(m proto.Message) *metasrvpb.RequestHeader {
	r := m.ProtoReflect()
	fd := r.Descriptor().Fields().ByName(headerField)
	if fd == nil || !r.Has(fd) {
		return nil
	}
	header, _ := r.Get(fd).Message().Interface().(*metasrvpb.RequestHeader)
	return header
}

// isStale reports whether any member may answer the request.
func isStale(m proto.Message) bool {
	return headerOf(m).GetReadLevel() == metasrvpb.ReadLevel_READ_LEVEL_STALE
}

// withHeader returns a copy of m that has a header of its own, and that header. Everything else is shared
// with m, which stays as it is. The header is nil for a message that can't have one.
func withHeader(m proto.Message) (proto.Message, *metasrvpb.RequestHeader) {
	src := m.ProtoReflect()
	fd := src.Descriptor().Fields().ByName(headerField)
	if fd == nil || fd.Message() == nil ||
		fd.Message().FullName() != (*metasrvpb.RequestHeader)(nil).ProtoReflect().Descriptor().FullName() {
		return m, nil
	}
	header := &metasrvpb.RequestHeader{}
	if h := headerOf(m); h != nil {
		header = proto.CloneOf(h)
	}
	dst := src.New()
	src.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		dst.Set(f, v)
		return true
	})
	dst.SetUnknown(src.GetUnknown())
	dst.Set(fd, protoreflect.ValueOfMessage(header.ProtoReflect()))
	return dst.Interface(), header
}
