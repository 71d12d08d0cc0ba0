package client

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// action is what a call does after an attempt failed.
type action int

const (
	giveUp       action = iota // the answer is final
	follow                     // ask the metasrv leader that the answer names, at once
	another                    // ask another member, after a pause
	again                      // ask the same member, after a pause
	renewSession               // the session is gone; only the caller of the attempt knows whether to open a new one
)

// verdict is what an error of one attempt means for the call.
type verdict struct {
	action action
	// leader is the address to follow.
	leader string
	// delay is the shortest pause that the member asks for, 0 where it asks for none.
	delay time.Duration
	// unknown: the request may have been executed, or may yet be.
	unknown bool
	// settled: the error is the outcome of the request, also if earlier attempts left it unknown.
	settled bool
}

// classify is the whole retry policy. err is the error of one attempt whose call still has time.
func classify(err error) verdict {
	st, _ := status.FromError(err)
	d := detailsOf(st)
	v := verdict{delay: d.retryDelay}
	switch d.reason {
	case metasrv.ErrNotLeader.Reason:
		v.action, v.leader = another, d.leader
		if d.leader != "" {
			v.action = follow
		}
		return v
	case metasrv.ErrSessionExpired.Reason:
		v.action = renewSession
		return v
	case metasrv.ErrNodesNotHeard.Reason, metasrv.ErrOverloaded.Reason, metasrv.ErrSessionFull.Reason, metasrv.ErrTooManySessions.Reason,
		metasrv.ErrDiskFull.Reason, metasrv.ErrStillWaiting.Reason:
		v.action = again
		return v
	case metasrv.ErrStatesDiffer.Reason, metasrv.ErrClusterMismatch.Reason:
		// No use to try again. They refuse this attempt before the log: an earlier one may have been executed.
		return v
	case metasrv.ErrNotReady.Reason:
		v.action = another
		return v
	case metasrv.ErrOutcomeUnknown.Reason:
		v.action, v.unknown = another, true
		return v
	}
	v.settled = d.reason != ""
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		// Lost connections, attempts that took too long, members that stop. A metasrv error among these has
		// a reason that a newer member knows; it is no more certain.
		v.action, v.unknown, v.settled = another, true, false
	case codes.Internal, codes.Unknown, codes.DataLoss:
		// Something broke, perhaps behind the log. Trying again would break it again.
		v.unknown, v.settled = true, false
	case codes.ResourceExhausted:
		// Without RetryInfo this is gRPC's own: a message too large stays too large.
		// It may be the answer that is, of a request that was executed.
		if d.hasRetryInfo {
			v.action = again
		} else {
			v.unknown, v.settled = true, false
		}
	}
	return v
}

// details are those parts of a status that the client understands.
type details struct {
	reason       string
	field        string
	description  string
	leader       string
	revision     uint64
	hasRetryInfo bool
	retryDelay   time.Duration
}

const errorDomain = "metasrv"

func detailsOf(st *status.Status) details {
	var d details
	for _, detail := range st.Details() {
		switch m := detail.(type) {
		case *errdetails.ErrorInfo:
			if m.GetDomain() == errorDomain {
				d.reason = m.GetReason()
			}
		case *errdetails.BadRequest:
			if v := m.GetFieldViolations(); len(v) > 0 {
				d.field, d.description = v[0].GetField(), v[0].GetDescription()
			}
		case *errdetails.RetryInfo:
			d.hasRetryInfo, d.retryDelay = true, max(0, m.GetRetryDelay().AsDuration())
		case *metasrvpb.RevisionInfo:
			d.revision = m.GetRevision()
		case *metasrvpb.NotLeader:
			d.leader = m.GetLeader().GetGrpcAddr()
		}
	}
	return d
}
