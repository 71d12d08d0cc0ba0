package cluster

import (
	"errors"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
)

// dialError is what gRPC says of a connection that it could not open, with the reason in the first group.
var dialError = regexp.MustCompile(
	`connection error: desc = \\?"transport: [^"]*?dial tcp [^ "]+: (?:connect: )?([^"\\]*)\\?"(?: \(Unavailable\))?`)

// statusPrefix is how gRPC begins the text of a status, which may stand in the text of another one.
var statusPrefix = regexp.MustCompile(`rpc error: code = \w+ desc = `)

// notSent reports whether a call failed since there is no connection to make it on.
func notSent(err error) bool {
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.Unavailable && strings.HasPrefix(st.Message(), "connection error: ")
}

// plainError is an error with a text of ours.
type plainError struct {
	text string
	err  error
}

// Error implements error.
func (e *plainError) Error() string { return e.text }

// Unwrap returns the error whose text was replaced.
func (e *plainError) Unwrap() error { return e.err }

// plain returns a call's error in words that need no knowledge of gRPC, once. A refusal of metasrv stays as it is.
func plain(err error) error {
	if _, refused := errors.AsType[*metasrv.Error](err); refused {
		return err
	}
	if call, ok := errors.AsType[*client.Error](err); ok {
		text := call.Error()
		if _, tried, ok := strings.Cut(text, "; tried "); ok {
			text = "tried " + tried
		}
		text = "metasrv does not answer: " + dialError.ReplaceAllString(text, "$1")
		return &plainError{strings.Replace(err.Error(), call.Error(), text, 1), err}
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := statusPrefix.ReplaceAllString(dialError.ReplaceAllString(st.Message(), "$1"), "")
	if st.Code() == codes.DeadlineExceeded {
		text = "no answer in time"
	}
	return &plainError{text, err}
}
