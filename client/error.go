package client

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
)

// Error is a failed call. errors.Is finds the error of the metasrv package that the cluster answered with
// (metasrv.ErrTableNotFound), metasrv.ErrOutcomeUnknown where a write may have been executed although the
// call failed, and context.Canceled or context.DeadlineExceeded where the context ended the call.
// status.FromError returns the last answer's status with its details.
type Error struct {
	// Method is the full name of the RPC: /metasrv.v1.Router/Create.
	Method string

	status *status.Status
	causes []error
	trail  trail
}

// Error returns what the cluster answered and, where several attempts were made, what each member said last.
func (e *Error) Error() string {
	if tried := e.trail.String(); tried != "" {
		return fmt.Sprintf("%s; tried %s", e.status.Message(), tried)
	}
	return e.status.Message()
}

// Unwrap returns the errors that the call failed with.
func (e *Error) Unwrap() []error { return e.causes }

// GRPCStatus returns the status of the last answer, with its details.
func (e *Error) GRPCStatus() *status.Status {
	p := e.status.Proto()
	p.Message = e.Error()
	return status.FromProto(p)
}

// Reason returns the stable name of the metasrv error in err, such as TABLE_NOT_FOUND; empty where there is
// none. It takes errors of this package and of any other gRPC client.
func Reason(err error) string {
	if e, ok := errors.AsType[*metasrv.Error](err); ok {
		return e.Reason
	}
	st, _ := status.FromError(err)
	return detailsOf(st).reason
}

// domainError returns the metasrv error that a status carries, nil where it carries none.
func domainError(st *status.Status) error {
	d := detailsOf(st)
	if d.reason == "" {
		return nil
	}
	message := st.Message()
	if d.field != "" && d.description != "" {
		message = d.description
	}
	return metasrv.ErrorOf(d.reason, message, d.field).At(d.revision)
}

// newError returns the Error for the last error of a call. more are further causes; they come first.
func newError(method string, err error, t trail, more ...error) *Error {
	st, _ := status.FromError(err)
	e := &Error{Method: method, status: st, trail: t}
	for _, cause := range append(more, domainError(st), err) {
		if cause != nil {
			e.causes = append(e.causes, cause)
		}
	}
	return e
}

// errOutcomeUnknown is the answer where a write can't be sent again without the risk to execute it twice.
func errOutcomeUnknown(method string, why error) error {
	err := metasrv.ErrOutcomeUnknown.With("%s may have been executed or not: %v", method, why)
	return &Error{Method: method, status: statusWith(codes.Unavailable, err), causes: []error{err, why}}
}

// statusWith returns the status of an error as a member would send it.
func statusWith(code codes.Code, err *metasrv.Error) *status.Status {
	st, detailErr := status.New(code, err.Message).WithDetails(&errdetails.ErrorInfo{Reason: err.Reason, Domain: errorDomain})
	if detailErr != nil {
		return status.New(code, err.Message)
	}
	return st
}

// trail is what each member said last, in the order in which they were first asked.
type trail []step

type step struct {
	member   string
	attempts int
	message  string
}

func (t *trail) add(member string, err error) {
	st, _ := status.FromError(err)
	message := fmt.Sprintf("%s (%s)", st.Message(), st.Code())
	for i := range *t {
		if s := &(*t)[i]; s.member == member {
			s.attempts++
			s.message = message
			return
		}
	}
	*t = append(*t, step{member: member, attempts: 1, message: message})
}

// String is empty where there was one attempt only: its message says all.
func (t trail) String() string {
	if len(t) == 0 || len(t) == 1 && t[0].attempts == 1 {
		return ""
	}
	parts := make([]string, len(t))
	for i, s := range t {
		parts[i] = fmt.Sprintf("%s (%d×): %s", s.member, s.attempts, s.message)
	}
	return strings.Join(parts, "; ")
}
