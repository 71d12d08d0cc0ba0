package server

import (
	"strings"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// access says which member may answer an RPC.
type access int

const (
	// accessWrite changes the state: the metasrv leader only. An RPC that is missing in methods is one.
	accessWrite access = iota
	// accessRead is answered from the state, on the member that the read level allows.
	accessRead
	// accessAny is answered by every member for itself.
	accessAny
	// accessHeartbeat is the heartbeat stream: on the metasrv leader, from the first message on.
	accessHeartbeat
)

// accessOf returns who may answer a method, and whether it is one of metasrv.v1.
func accessOf(method string) (access access, ours bool) {
	return methods[method], strings.HasPrefix(method, nativePackage)
}

// methods classes every RPC of metasrv.v1.
var methods = map[string]access{
	metasrvpb.Heartbeat_Heartbeat_FullMethodName: accessHeartbeat,
	metasrvpb.Heartbeat_AskLeader_FullMethodName: accessAny,

	metasrvpb.Router_Create_FullMethodName: accessWrite,
	metasrvpb.Router_Route_FullMethodName:  accessRead,
	metasrvpb.Router_Delete_FullMethodName: accessWrite,
	metasrvpb.Router_Watch_FullMethodName:  accessAny,

	metasrvpb.Catalog_CreateCatalog_FullMethodName: accessWrite,
	metasrvpb.Catalog_GetCatalog_FullMethodName:    accessRead,
	metasrvpb.Catalog_ListCatalogs_FullMethodName:  accessRead,
	metasrvpb.Catalog_DropCatalog_FullMethodName:   accessWrite,
	metasrvpb.Catalog_CreateSchema_FullMethodName:  accessWrite,
	metasrvpb.Catalog_GetSchema_FullMethodName:     accessRead,
	metasrvpb.Catalog_ListSchemas_FullMethodName:   accessRead,
	metasrvpb.Catalog_DropSchema_FullMethodName:    accessWrite,
	metasrvpb.Catalog_GetTable_FullMethodName:      accessRead,
	metasrvpb.Catalog_ListTables_FullMethodName:    accessRead,
	metasrvpb.Catalog_AlterTable_FullMethodName:    accessWrite,
	metasrvpb.Catalog_RenameTable_FullMethodName:   accessWrite,
	metasrvpb.Catalog_CommitTable_FullMethodName:   accessWrite,
	metasrvpb.Catalog_AbortTable_FullMethodName:    accessWrite,
	metasrvpb.Catalog_Watch_FullMethodName:         accessAny,

	metasrvpb.Store_Range_FullMethodName:         accessRead,
	metasrvpb.Store_Put_FullMethodName:           accessWrite,
	metasrvpb.Store_CompareAndPut_FullMethodName: accessWrite,
	metasrvpb.Store_DeleteRange_FullMethodName:   accessWrite,
	metasrvpb.Store_BatchGet_FullMethodName:      accessRead,
	metasrvpb.Store_BatchPut_FullMethodName:      accessWrite,
	metasrvpb.Store_BatchDelete_FullMethodName:   accessWrite,
	metasrvpb.Store_MoveValue_FullMethodName:     accessWrite,
	// A transaction that only reads is a read; the handler tells.
	metasrvpb.Store_Txn_FullMethodName:   accessRead,
	metasrvpb.Store_Watch_FullMethodName: accessAny,

	metasrvpb.Lock_Lock_FullMethodName:        accessWrite,
	metasrvpb.Lock_Unlock_FullMethodName:      accessWrite,
	metasrvpb.Lock_OpenHolder_FullMethodName:  accessWrite,
	metasrvpb.Lock_KeepHolder_FullMethodName:  accessWrite,
	metasrvpb.Lock_CloseHolder_FullMethodName: accessWrite,
	metasrvpb.Lock_ListLocks_FullMethodName:   accessRead,

	metasrvpb.Election_Campaign_FullMethodName: accessWrite,
	metasrvpb.Election_Proclaim_FullMethodName: accessWrite,
	metasrvpb.Election_Resign_FullMethodName:   accessWrite,
	metasrvpb.Election_Leader_FullMethodName:   accessRead,
	metasrvpb.Election_Observe_FullMethodName:  accessAny,

	metasrvpb.Cluster_Status_FullMethodName:       accessAny,
	metasrvpb.Cluster_ListMembers_FullMethodName:  accessRead,
	metasrvpb.Cluster_WatchNodes_FullMethodName:   accessAny,
	metasrvpb.Cluster_ListNodes_FullMethodName:    accessRead,
	metasrvpb.Cluster_GetNode_FullMethodName:      accessRead,
	metasrvpb.Cluster_ListRegions_FullMethodName:  accessRead,
	metasrvpb.Cluster_Stats_FullMethodName:        accessRead,
	metasrvpb.Cluster_OpenSession_FullMethodName:  accessWrite,
	metasrvpb.Cluster_CloseSession_FullMethodName: accessWrite,
	metasrvpb.Cluster_GetConfig_FullMethodName:    accessRead,
	metasrvpb.Cluster_Configure_FullMethodName:    accessWrite,

	metasrvpb.Cluster_GetRegion_FullMethodName:        accessRead,
	metasrvpb.Cluster_StartProcedure_FullMethodName:   accessWrite,
	metasrvpb.Cluster_ListProcedures_FullMethodName:   accessRead,
	metasrvpb.Cluster_GetProcedure_FullMethodName:     accessRead,
	metasrvpb.Cluster_CancelProcedure_FullMethodName:  accessWrite,
	metasrvpb.Cluster_UndrainNode_FullMethodName:      accessWrite,
	metasrvpb.Cluster_ListGroups_FullMethodName:       accessRead,
	metasrvpb.Cluster_ElectGroupWriter_FullMethodName: accessWrite,

	metasrvpb.Maintenance_Snapshot_FullMethodName:           accessRead,
	metasrvpb.Maintenance_Hash_FullMethodName:               accessAny,
	metasrvpb.Maintenance_Sessions_FullMethodName:           accessWrite,
	metasrvpb.Maintenance_ConfigureSessions_FullMethodName:  accessWrite,
	metasrvpb.Maintenance_AddMember_FullMethodName:          accessWrite,
	metasrvpb.Maintenance_PromoteMember_FullMethodName:      accessWrite,
	metasrvpb.Maintenance_RemoveMember_FullMethodName:       accessWrite,
	metasrvpb.Maintenance_UpdateMember_FullMethodName:       accessWrite,
	metasrvpb.Maintenance_TransferLeadership_FullMethodName: accessWrite,
	metasrvpb.Maintenance_Quarantine_FullMethodName:         accessWrite,
	metasrvpb.Maintenance_EndQuarantine_FullMethodName:      accessWrite,
}
