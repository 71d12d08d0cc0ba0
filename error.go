package metasrv

import "fmt"

// Kind says what a caller can do about an Error. The server maps each kind to one gRPC status code.
type Kind int

// The kinds of errors.
const (
	KindInternal           Kind = iota // a bug or a broken member
	KindInvalidArgument                // the request can never succeed
	KindNotFound                       // what the request names does not exist
	KindAlreadyExists                  // what the request creates exists
	KindFailedPrecondition             // the state must change first
	KindAborted                        // someone else was faster: read again, then retry
	KindUnavailable                    // retry the same request
	KindResourceExhausted              // retry later
	KindOutOfRange                     // what is asked for has passed
	KindUnimplemented                  // this server doesn't do that
)

// Error is an answer that refuses. Two errors are the same to errors.Is if they have the same Reason.
type Error struct {
	Kind Kind
	// Reason is the stable name of the error, which programs compare: TABLE_NOT_FOUND.
	Reason string
	// Message is for people; it names the object.
	Message string
	// Field is the request field at fault, empty where none is.
	Field string
	// Revision is what ErrCompacted and ErrSlowWatcher say of it, else 0. It is sent to clients, but not stored.
	Revision uint64
}

// Error returns the message, preceded by the field at fault.
func (e *Error) Error() string {
	switch {
	case e.Message == "":
		return e.Reason
	case e.Field != "":
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Is reports whether target is an Error of the same Reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// With returns the error with a message.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	c.Message = fmt.Sprintf(format, args...)
	return &c
}

// At returns the error with a revision.
func (e *Error) At(revision uint64) *Error {
	c := *e
	c.Revision = revision
	return &c
}

// InvalidArgument returns ErrInvalidArgument for a request field.
func InvalidArgument(field, format string, args ...any) *Error {
	e := ErrInvalidArgument.With(format, args...)
	e.Field = field
	return e
}

// The errors of metasrv. Compare with errors.Is.
var (
	ErrInvalidArgument = define(KindInvalidArgument, "INVALID_ARGUMENT")

	ErrCatalogNotFound = define(KindNotFound, "CATALOG_NOT_FOUND")
	ErrCatalogExists   = define(KindAlreadyExists, "CATALOG_ALREADY_EXISTS")
	ErrCatalogNotEmpty = define(KindFailedPrecondition, "CATALOG_NOT_EMPTY")
	ErrSchemaNotFound  = define(KindNotFound, "SCHEMA_NOT_FOUND")
	ErrSchemaExists    = define(KindAlreadyExists, "SCHEMA_ALREADY_EXISTS")
	ErrSchemaNotEmpty  = define(KindFailedPrecondition, "SCHEMA_NOT_EMPTY")
	ErrTableNotFound   = define(KindNotFound, "TABLE_NOT_FOUND")
	ErrTableExists     = define(KindAlreadyExists, "TABLE_ALREADY_EXISTS")
	// ErrSchemaVersionChanged: the schema was altered since it was read.
	ErrSchemaVersionChanged = define(KindAborted, "SCHEMA_VERSION_CHANGED")
	// ErrCreationEnded: the table is no longer in state CREATING, or another creation took its place.
	ErrCreationEnded = define(KindFailedPrecondition, "CREATION_ENDED")
	// ErrReplicaNotCreated: a commit lacks a replica, or another incarnation than the planned one created it.
	ErrReplicaNotCreated = define(KindFailedPrecondition, "REPLICA_NOT_CREATED")

	// ErrRegionNotFound: no table in state PUBLIC has the region.
	ErrRegionNotFound = define(KindNotFound, "REGION_NOT_FOUND")
	// ErrRegionChanged: the region has another leader_epoch or conf_version than the change was planned on.
	ErrRegionChanged = define(KindAborted, "REGION_CHANGED")
	// ErrReplicaNotFound: the region has no such replica.
	ErrReplicaNotFound = define(KindNotFound, "REPLICA_NOT_FOUND")
	// ErrReplicaExists: the node has a replica of the region.
	ErrReplicaExists = define(KindAlreadyExists, "REPLICA_ALREADY_EXISTS")
	// ErrReplicaNotInSync: the replica may lack rows that were acknowledged.
	ErrReplicaNotInSync = define(KindFailedPrecondition, "REPLICA_NOT_IN_SYNC")
	// ErrReplicaLost: the node of the replica came back with other storage.
	ErrReplicaLost = define(KindFailedPrecondition, "REPLICA_LOST")
	// ErrReplicaLeads: the replica leads its region, another one must be elected first.
	ErrReplicaLeads = define(KindFailedPrecondition, "REPLICA_LEADS")
	// ErrNodeKeepsNoLease: the node acknowledges writes without a lease, so nobody can take a region over from it.
	ErrNodeKeepsNoLease = define(KindFailedPrecondition, "NODE_KEEPS_NO_LEASE")

	// ErrGroupNotFound: no node is registered as one of the group.
	ErrGroupNotFound = define(KindNotFound, "GROUP_NOT_FOUND")
	// ErrGroupChanged: the group has another version than the change was planned on.
	ErrGroupChanged = define(KindAborted, "GROUP_CHANGED")
	// ErrNodeNotInGroup: the node is not one of the group.
	ErrNodeNotInGroup = define(KindFailedPrecondition, "NODE_NOT_IN_GROUP")
	// ErrNodeNotInSync: the node may lack writes of its group that were acknowledged.
	ErrNodeNotInSync = define(KindFailedPrecondition, "NODE_NOT_IN_SYNC")
	// ErrNodeNotLive: the node's heartbeats are missing.
	ErrNodeNotLive = define(KindFailedPrecondition, "NODE_NOT_LIVE")
	// ErrNotGroupWriter: this node is not the writer of its group. Nothing was written.
	ErrNotGroupWriter = define(KindFailedPrecondition, "NOT_GROUP_WRITER")

	// ErrNoLiveDatanode: no datanode sends heartbeats.
	ErrNoLiveDatanode = define(KindFailedPrecondition, "NO_LIVE_DATANODE")
	// ErrTooFewDatanodes: fewer live datanodes than replicas asked for.
	ErrTooFewDatanodes = define(KindFailedPrecondition, "TOO_FEW_DATANODES")
	// ErrNodesNotHeard: a new metasrv leader still waits for the first heartbeats of known datanodes.
	ErrNodesNotHeard = define(KindUnavailable, "NODES_NOT_HEARD")
	ErrNodeNotFound  = define(KindNotFound, "NODE_NOT_FOUND")
	// ErrStaleIncarnation: another process registered under the same node id since.
	ErrStaleIncarnation = define(KindFailedPrecondition, "STALE_INCARNATION")
	// ErrNodeIDTaken: a live process with other storage has the node id.
	ErrNodeIDTaken = define(KindFailedPrecondition, "NODE_ID_TAKEN")
	// ErrStreamReplaced: the same process opened another heartbeat stream, which is the one that counts.
	ErrStreamReplaced = define(KindAborted, "STREAM_REPLACED")
	// ErrNotRegionLeader: this node doesn't lead the region. Nothing was written.
	ErrNotRegionLeader = define(KindFailedPrecondition, "NOT_REGION_LEADER")
	// ErrNoLease: the node leads the region, and has no lease for it at present. Nothing was written; try again.
	ErrNoLease = define(KindUnavailable, "NO_LEASE")

	// ErrNodeDraining: the node gets no replicas: it is being drained, or was.
	ErrNodeDraining = define(KindFailedPrecondition, "NODE_DRAINING")
	// ErrNodeNotDrained: the node has replicas, so it can't be removed.
	ErrNodeNotDrained = define(KindFailedPrecondition, "NODE_NOT_DRAINED")
	// ErrNodeRemoved: the id of the node was used by one that was removed. Ids are never used twice.
	ErrNodeRemoved = define(KindFailedPrecondition, "NODE_REMOVED")
	// ErrLastReplica: the node has the last in-sync replica of a region.
	ErrLastReplica = define(KindFailedPrecondition, "LAST_REPLICA")

	// ErrProcedureNotFound: no such procedure runs or is among the last that ended.
	ErrProcedureNotFound = define(KindNotFound, "PROCEDURE_NOT_FOUND")
	// ErrProcedureConflict: another procedure works on the same region, node or table.
	ErrProcedureConflict = define(KindFailedPrecondition, "PROCEDURE_CONFLICT")
	// ErrProcedureChanged: the procedure has changed since the step was planned.
	ErrProcedureChanged = define(KindAborted, "PROCEDURE_CHANGED")
	// ErrProcedureEnded: the procedure has ended, or can't be taken back any more.
	ErrProcedureEnded = define(KindFailedPrecondition, "PROCEDURE_ENDED")
	// ErrTooManyProcedures: as many procedures run as are allowed at once.
	ErrTooManyProcedures = define(KindResourceExhausted, "TOO_MANY_PROCEDURES")

	// ErrHolderNotFound: the holder of locks and candidacies is unknown, or was not renewed in time.
	ErrHolderNotFound = define(KindNotFound, "HOLDER_NOT_FOUND")
	// ErrNotHeld: another claim on the name is the first, or there is none.
	ErrNotHeld = define(KindFailedPrecondition, "NOT_HELD")
	// ErrStillWaiting: the claim is not the first yet. It keeps its place: ask again.
	ErrStillWaiting = define(KindUnavailable, "STILL_WAITING")
	// ErrTooManyClaims: as many holders, or claims on a name, are there as are remembered.
	ErrTooManyClaims = define(KindResourceExhausted, "TOO_MANY_CLAIMS")

	// ErrNotLeader: the request belongs to the metasrv leader.
	ErrNotLeader = define(KindFailedPrecondition, "NOT_LEADER")
	// ErrNotReady: the metasrv leader has not taken over yet, or this member is starting or stopping.
	ErrNotReady = define(KindUnavailable, "NOT_READY")
	// ErrOutcomeUnknown: the command may have been executed or not. Retry it with the same request id.
	ErrOutcomeUnknown = define(KindUnavailable, "OUTCOME_UNKNOWN")
	// ErrOverloaded: more waits to be written than the member takes.
	ErrOverloaded = define(KindResourceExhausted, "OVERLOADED")
	// ErrDiskFull: the disk of the metasrv leader has no space. The command was not executed.
	ErrDiskFull = define(KindResourceExhausted, "DISK_FULL")
	// ErrStaleTerm: a leader duty's command was planned in an earlier term.
	ErrStaleTerm = define(KindAborted, "STALE_TERM")
	// ErrSessionExpired: the session is unknown or expired, or the sequence was acknowledged. The command was
	// not executed by this request.
	ErrSessionExpired = define(KindFailedPrecondition, "SESSION_EXPIRED")
	// ErrSessionFull: the session has as many results that were not acknowledged as are remembered. The command was not
	// executed; it may be sent again when results were acknowledged, or in another session.
	ErrSessionFull = define(KindResourceExhausted, "SESSION_FULL")
	// ErrTooManySessions: as many sessions are open as are remembered.
	ErrTooManySessions = define(KindResourceExhausted, "TOO_MANY_SESSIONS")
	// ErrClusterVersion: the command is newer than a member of the cluster. It was not executed.
	ErrClusterVersion = define(KindFailedPrecondition, "CLUSTER_VERSION")
	// ErrStatesDiffer: members have different states and no majority agrees on one. Writes are refused until a person has
	// decided.
	ErrStatesDiffer = define(KindFailedPrecondition, "STATES_DIFFER")
	// ErrCompacted: the changes asked for are no longer remembered. Its Revision is the oldest one from which a watch
	// can begin.
	ErrCompacted = define(KindOutOfRange, "COMPACTED")
	// ErrSlowWatcher: the watch took its changes too slowly and was cut off. Its Revision is the one to go on from.
	ErrSlowWatcher = define(KindResourceExhausted, "SLOW_WATCHER")
	// ErrTooLarge: the answer would have more bytes than one message can; ask for less at a time.
	ErrTooLarge       = define(KindResourceExhausted, "TOO_LARGE")
	ErrMemberNotFound = define(KindNotFound, "MEMBER_NOT_FOUND")
	ErrMemberExists   = define(KindAlreadyExists, "MEMBER_ALREADY_EXISTS")
	// ErrMemberRemoved: the id of the member was used by one that was removed. Ids are never used twice.
	ErrMemberRemoved = define(KindFailedPrecondition, "MEMBER_REMOVED")
	// ErrMemberNotCaughtUp: the member lags too far behind to vote, or doesn't answer.
	ErrMemberNotCaughtUp = define(KindFailedPrecondition, "MEMBER_NOT_CAUGHT_UP")
	// ErrQuorumAtRisk: after the change too few voters would be there to go on.
	ErrQuorumAtRisk = define(KindFailedPrecondition, "QUORUM_AT_RISK")
	// ErrConfigurationChanged: the members have changed since they were read.
	ErrConfigurationChanged = define(KindAborted, "CONFIGURATION_CHANGED")
	// ErrNotTransferred: the leadership stays where it was.
	ErrNotTransferred = define(KindFailedPrecondition, "LEADERSHIP_NOT_TRANSFERRED")
	// ErrClusterMismatch: the caller belongs to another cluster.
	ErrClusterMismatch = define(KindFailedPrecondition, "CLUSTER_MISMATCH")
	ErrInternal        = define(KindInternal, "INTERNAL")
)

var kinds = map[string]Kind{}

func define(kind Kind, reason string) *Error {
	kinds[reason] = kind
	return &Error{Kind: kind, Reason: reason}
}

// ErrorOf returns the error with a reason, as it was stored or sent. An unknown reason is of KindInternal.
func ErrorOf(reason, message, field string) *Error {
	return &Error{Kind: kinds[reason], Reason: reason, Message: message, Field: field}
}
