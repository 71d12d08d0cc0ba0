package client

import (
	"context"
	"errors"
	"math/rand/v2"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Update is what a watch tells at a time.
type Update[E any] struct {
	// Begins: what was known before is void. The events of this update, and of those after it until one that is
	// Complete, describe the whole present state.
	Begins bool
	// Events are in the order of their revisions. There are none in an update that only tells how far the watch is.
	Events []E
	// Complete: everything up to Revision was told. Only the updates of a present state may be incomplete, those of
	// changes have whole revisions.
	Complete bool
	// Revision is the last one that is told completely.
	Revision uint64
}

// WatchStore calls f with the present pairs of a range and then with their changes, each once and in order, across lost
// connections, elections and restarts of members, until ctx ends or f returns an error, which is what it returns. A
// request that is refused ends it too. With StartRevision or ChangesOnly there are only changes at first; where some
// were missed, because the cluster no longer remembers them, there is an update that Begins.
func (c *Client) WatchStore(ctx context.Context, request *metasrvpb.WatchRequest, f func(Update[*metasrvpb.WatchEvent]) error) error {
	return follower[*metasrvpb.WatchEvent, *metasrvpb.WatchResponse]{
		begins: request.GetStartRevision() == 0 && !request.GetChangesOnly(),
		handle: f,
		open: func(ctx context.Context, p position) (receiver[*metasrvpb.WatchResponse], error) {
			r, header := withHeader(request)
			header.MinRevision = max(header.MinRevision, p.least)
			watch := r.(*metasrvpb.WatchRequest)
			watch.StartRevision, watch.ChangesOnly = p.start, watch.ChangesOnly && p.first
			return c.Store().Watch(ctx, watch)
		},
	}.run(ctx, request.GetStartRevision(), c)
}

// WatchCatalog calls f with what catalogs, schemas and tables there are and with their changes, as WatchStore does.
func (c *Client) WatchCatalog(
	ctx context.Context, request *metasrvpb.WatchCatalogRequest, f func(Update[*metasrvpb.CatalogEvent]) error,
) error {
	return follower[*metasrvpb.CatalogEvent, *metasrvpb.WatchCatalogResponse]{
		begins: request.GetStartRevision() == 0 && !request.GetChangesOnly(),
		handle: f,
		open: func(ctx context.Context, p position) (receiver[*metasrvpb.WatchCatalogResponse], error) {
			r, header := withHeader(request)
			header.MinRevision = max(header.MinRevision, p.least)
			watch := r.(*metasrvpb.WatchCatalogRequest)
			watch.StartRevision, watch.ChangesOnly = p.start, watch.ChangesOnly && p.first
			return c.Catalog().Watch(ctx, watch)
		},
	}.run(ctx, request.GetStartRevision(), c)
}

// WatchNodes calls f with the registered nodes and with the changes of their registrations, as WatchStore does.
func (c *Client) WatchNodes(
	ctx context.Context, request *metasrvpb.WatchNodesRequest, f func(Update[*metasrvpb.NodeEvent]) error,
) error {
	return follower[*metasrvpb.NodeEvent, *metasrvpb.WatchNodesResponse]{
		begins: request.GetStartRevision() == 0 && !request.GetChangesOnly(),
		handle: f,
		open: func(ctx context.Context, p position) (receiver[*metasrvpb.WatchNodesResponse], error) {
			r, header := withHeader(request)
			header.MinRevision = max(header.MinRevision, p.least)
			watch := r.(*metasrvpb.WatchNodesRequest)
			watch.StartRevision, watch.ChangesOnly = p.start, watch.ChangesOnly && p.first
			return c.Cluster().WatchNodes(ctx, watch)
		},
	}.run(ctx, request.GetStartRevision(), c)
}

// position is where a watch is opened.
type position struct {
	// start is the first revision that is wanted, 0 for the present state first.
	start uint64
	// least is the revision that the member must have reached: a watch never goes back.
	least uint64
	// first: nothing has been told yet.
	first bool
}

type receiver[M any] = interface{ Recv() (M, error) }

type watchMessage[E any] interface {
	GetEvents() []E
	GetRevision() uint64
}

// follower opens a watch again and again where it was.
type follower[E any, M watchMessage[E]] struct {
	open   func(context.Context, position) (receiver[M], error)
	handle func(Update[E]) error
	// begins: the watch tells the present state first.
	begins bool
}

// handlerError ends a watch: the caller wants no more of it.
type handlerError struct{ error }

func (f follower[E, M]) run(ctx context.Context, start uint64, c *Client) error {
	at := position{start: start, first: true}
	wait := minWatchPause
	for {
		before := at
		err := f.follow(ctx, &at)
		if own, ok := errors.AsType[handlerError](err); ok {
			return own.error
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case Reason(err) == metasrv.ErrCompacted.Reason:
			at = position{least: at.least, first: false}
			f.begins = true
		case isRefusal(err):
			return err
		}
		if at.least > before.least {
			wait = minWatchPause
		}
		c.cfg.Logger.Debug("watch broken", "revision", at.start, "error", err)
		// Half of the pause is random: all watchers lose a member at the same time.
		if !pause(ctx, wait/2+rand.N(wait/2)) { //nolint:gosec // spreads load, guards nothing
			<-ctx.Done()
			return context.Cause(ctx)
		}
		wait = min(2*wait, maxWatchPause)
	}
}

// isRefusal reports whether to watch again would get the same answer.
func isRefusal(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return true
	case codes.Canceled:
		return errors.Is(err, errClosed)
	}
	return Reason(err) == metasrv.ErrClusterMismatch.Reason
}

// follow watches from a position, which it moves forward, until the watch breaks.
func (f follower[E, M]) follow(ctx context.Context, at *position) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := f.open(ctx, *at)
	if err != nil {
		return err
	}
	// Of the present state each message is told, of a revision in several messages all are told together.
	listing, fresh := at.start == 0 && (f.begins || !at.first), true
	var events []E
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		u := Update[E]{Begins: listing && fresh, Events: m.GetEvents(), Revision: at.least}
		fresh = false
		// A part has events; a cluster in which nothing was changed yet is at revision 0.
		if revision := m.GetRevision(); revision > 0 || len(m.GetEvents()) == 0 {
			u.Complete, u.Revision = true, revision
			*at = position{start: revision + 1, least: revision}
			listing = false
		} else if !listing {
			events = append(events, m.GetEvents()...)
			continue
		}
		if len(events) > 0 {
			u.Events, events = append(events, u.Events...), nil
		}
		if err := f.handle(u); err != nil {
			return handlerError{err}
		}
	}
}
