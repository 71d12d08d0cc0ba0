package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// errorDomain is the domain of the ErrorInfo that every error carries.
const errorDomain = "metasrv"

// statusCodes is the one table from the kinds of errors to gRPC.
var statusCodes = map[metasrv.Kind]codes.Code{
	metasrv.KindInternal:           codes.Internal,
	metasrv.KindInvalidArgument:    codes.InvalidArgument,
	metasrv.KindNotFound:           codes.NotFound,
	metasrv.KindAlreadyExists:      codes.AlreadyExists,
	metasrv.KindFailedPrecondition: codes.FailedPrecondition,
	metasrv.KindAborted:            codes.Aborted,
	metasrv.KindUnavailable:        codes.Unavailable,
	metasrv.KindResourceExhausted:  codes.ResourceExhausted,
	metasrv.KindOutOfRange:         codes.OutOfRange,
	metasrv.KindUnimplemented:      codes.Unimplemented,
}

// retryDelays holds the errors after which the same request may succeed, with how long to wait first.
var retryDelays = map[string]time.Duration{
	metasrv.ErrNotReady.Reason:       100 * time.Millisecond,
	metasrv.ErrOutcomeUnknown.Reason: 100 * time.Millisecond,
	metasrv.ErrStaleTerm.Reason:      100 * time.Millisecond,
	metasrv.ErrOverloaded.Reason:     500 * time.Millisecond,
	metasrv.ErrDiskFull.Reason:       2 * time.Second,
	metasrv.ErrNodesNotHeard.Reason:  250 * time.Millisecond,
}

// electionDelay is how long a caller waits before it asks again where there is no metasrv leader.
const electionDelay = 200 * time.Millisecond

// statusOf returns the gRPC status of an error; leader is what the member knows of the metasrv leader, nil
// where there is none. An error that is neither of metasrv nor of gRPC nor of a context is a bug: INTERNAL.
func statusOf(err error, leader *metasrvpb.Member) *status.Status {
	if e, ok := errors.AsType[*metasrv.Error](err); ok {
		return statusOfError(e, err.Error(), leader)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, err.Error())
	}
	if s, ok := status.FromError(err); ok {
		return s
	}
	return statusOfError(metasrv.ErrInternal, err.Error(), leader)
}

func statusOfError(e *metasrv.Error, message string, leader *metasrvpb.Member) *status.Status {
	code, ok := statusCodes[e.Kind]
	if !ok {
		code = codes.Internal
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain}}
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: e.Field, Description: e.Message, Reason: e.Reason},
		}})
	}
	if e.Revision != 0 || e.Reason == metasrv.ErrSlowWatcher.Reason {
		details = append(details, &metasrvpb.RevisionInfo{Revision: e.Revision})
	}
	delay, retry := retryDelays[e.Reason]
	if e.Reason == metasrv.ErrNotLeader.Reason {
		details = append(details, &metasrvpb.NotLeader{Leader: leader})
		if leader == nil {
			delay, retry = electionDelay, true
		}
	}
	if retry {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	}
	s, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		return status.New(codes.Internal, message+" (details lost: "+err.Error()+")")
	}
	return s
}
