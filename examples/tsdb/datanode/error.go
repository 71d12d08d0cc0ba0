package datanode

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
	"github.com/metasrv/metasrv/examples/tsdb/store"
)

// kindCodes says which status an error of the root package becomes.
var kindCodes = map[metasrv.Kind]codes.Code{
	metasrv.KindInternal:           codes.Internal,
	metasrv.KindInvalidArgument:    codes.InvalidArgument,
	metasrv.KindNotFound:           codes.NotFound,
	metasrv.KindAlreadyExists:      codes.AlreadyExists,
	metasrv.KindFailedPrecondition: codes.FailedPrecondition,
	metasrv.KindUnavailable:        codes.Unavailable,
	metasrv.KindResourceExhausted:  codes.ResourceExhausted,
}

// storeCodes says which status and reason an error of the store becomes. ErrNotFound and ErrStaleEpoch become
// INVALID_ROUTE, which names the replica, before they get here.
var storeCodes = []struct {
	err    error
	code   codes.Code
	reason string
}{
	{store.ErrExists, codes.AlreadyExists, "REGION_ALREADY_EXISTS"},
	{store.ErrDamaged, codes.DataLoss, "REPLICA_DAMAGED"},
	{store.ErrFormat, codes.FailedPrecondition, "REPLICA_FORMAT"},
	{store.ErrDiverged, codes.FailedPrecondition, "DIVERGED"},
	{store.ErrNotFound, codes.NotFound, "REPLICA_NOT_FOUND"},
	{store.ErrStaleEpoch, codes.FailedPrecondition, "STALE_EPOCH"},
	{context.Canceled, codes.Canceled, "CANCELED"},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
}

// toStatus returns the error as it is sent: a status with ErrorInfo. What no table knows, such as a full disk,
// is UNAVAILABLE: the request may succeed later, or elsewhere.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[*routing.Invalid](err); ok {
		return invalid.GRPCStatus().Err()
	}
	if e, ok := errors.AsType[*metasrv.Error](err); ok {
		code, known := kindCodes[e.Kind]
		if !known {
			code = codes.Internal
		}
		return detailed(status.New(code, err.Error()), e.Reason)
	}
	for _, row := range storeCodes {
		if errors.Is(err, row.err) {
			return detailed(status.New(row.code, err.Error()), row.reason)
		}
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return detailed(status.New(codes.Unavailable, err.Error()), "STORAGE_FAILED")
}

func detailed(s *status.Status, reason string) error {
	with, err := s.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: routing.Domain})
	if err != nil {
		return s.Err()
	}
	return with.Err()
}
