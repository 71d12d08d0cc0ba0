package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
)

// writeTrouble is what went wrong with the attempts of one write to one region.
type writeTrouble struct {
	began  time.Time
	table  metasrv.TableName
	region metasrv.RegionID
	// last is the last attempt that failed for a reason other than the end of the time.
	last error
	// reached says that a datanode may have stored rows although it didn't acknowledge them.
	reached bool
}

// add keeps how an attempt failed, and returns it with the node. refused says that the datanode answered that it
// stores nothing.
func (t *writeTrouble) add(ctx context.Context, on client.Endpoint, err error, refused bool) error {
	why := plain(err)
	at := &plainError{fmt.Sprintf("node %s at %s: %s", on.NodeID, on.Addr,
		strings.TrimPrefix(why.Error(), fmt.Sprintf("region %s: ", t.region))), why}
	t.reached = t.reached || !refused && !notSent(err)
	if t.last == nil || ctx.Err() == nil {
		t.last = at
	}
	return at
}

// failed returns the error of the write, in one line. routeErr says why no attempt follows, nil where the time is
// over.
func (t *writeTrouble) failed(routeErr error) error {
	text := fmt.Sprintf("region %s of %s takes no writes: %s", t.region, t.table, t.last)
	var why error = metasrv.ErrOutcomeUnknown
	if routeErr != nil {
		why = routeErr
		text = fmt.Sprintf("%s; then %s", text, plain(routeErr))
	}
	text += fmt.Sprintf(" (tried for %s)", time.Since(t.began).Round(100*time.Millisecond))
	if t.reached {
		text += ", but may have stored the rows"
	}
	return &plainError{text, errors.Join(why, t.last)}
}
