package server

import (
	"context"
	"iter"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// watchProgress is how often an idle watch is told how far it has come.
	watchProgress = 5 * time.Second
	// watchStall is how long a client may take no message before it is cut off.
	watchStall = 30 * time.Second
	// watchBytes is the size at which a message of a watch is full. Many watches may begin at once, each with a message
	// under way.
	watchBytes = 128 << 10
)

// topic says what a kind of watch shows: events E, in messages M.
type topic[M, E any] struct {
	// ranges are the keys of the state that it is made from; they don't overlap.
	ranges []keyRange
	// present returns the events that describe a whole state, nil where the watch doesn't begin with one.
	present func(state.View) iter.Seq2[E, error]
	// changed returns the events of a revision, with the changes of the ranges in it; the view is at or after it, and
	// nil where changes say all.
	changed func(state.View, state.Revision) ([]E, error)
	// lists is what watches of the topic share while they begin, nil where each begins by itself.
	lists *listings
	// wantsView: changes don't say all. To take a view has its price.
	wantsView bool
	// size returns about how much of a message an event takes.
	size func(E) int
	// message makes a message; revision is the one to resume behind, 0 where more of the same belongs to it.
	message func(view state.View, h *metasrvpb.ResponseHeader, events []E, revision uint64) *M
}

// serveWatch streams the changes of a topic from a revision on, 0 for the present state first. Every member serves it
// from its own state.
func serveWatch[M, E any](
	s *services, stream grpc.ServerStreamingServer[M], h *metasrvpb.RequestHeader, from uint64, t topic[M, E],
) error {
	ctx := stream.Context()
	view, err := s.waitRevision(ctx, h.GetMinRevision())
	if err != nil {
		return err
	}
	m := &messenger[M, E]{topic: t, node: s.node}
	if from > 0 {
		return m.serve(ctx, s, stream, from, func() error {
			m.outlet.watcher.resume.Store(from)
			return nil
		})
	}
	if t.lists == nil || t.present == nil {
		return m.serve(ctx, s, stream, view.Revision()+1, func() error { return m.begin(ctx, view) })
	}
	list, leave := t.lists.join(h.GetMinRevision(), func() *listing { return newListing(t, view) })
	leave = sync.OnceFunc(leave)
	defer leave()
	return m.serve(ctx, s, stream, list.revision+1, func() error {
		defer leave()
		return m.beginShared(ctx, list)
	})
}

// serve sends what the watch begins with, and then the changes from a revision on.
func (m *messenger[M, E]) serve(
	ctx context.Context, s *services, stream grpc.ServerStreamingServer[M], from uint64, begin func() error,
) error {
	w := s.hub.watch(m.ranges, from)
	defer s.hub.remove(w)
	m.outlet = newOutlet(s, stream, w)
	defer m.outlet.close()
	if err := begin(); err != nil {
		return err
	}
	return m.follow(ctx, w)
}

// messenger turns states and revisions into messages, and sends them.
type messenger[M, E any] struct {
	topic[M, E]
	node   Node
	outlet *outlet

	events []E
	bytes  int
	// reached is the last revision that anything was sent of.
	reached uint64
}

// begin sends a whole state, if the watch begins with one, and where it ends. Only the last message is a point to
// resume from.
func (m *messenger[M, E]) begin(ctx context.Context, view state.View) error {
	m.reached = view.Revision()
	if m.present != nil {
		for e, err := range m.present(view) {
			if err != nil {
				return err
			}
			if err := m.add(ctx, view, e); err != nil {
				return err
			}
		}
	}
	return m.send(ctx, view, view.Revision())
}

// beginShared sends a list that others read too.
func (m *messenger[M, E]) beginShared(ctx context.Context, list *listing) error {
	m.reached = list.revision
	for i := 0; ; i++ {
		page, last, err := list.page(i)
		if err != nil {
			return err
		}
		if err := m.outlet.send(ctx, &encoded{
			header: &metasrvpb.ResponseHeader{Revision: list.revision}, Message: any(new(M)).(proto.Message), shared: page,
		}); err != nil {
			return err
		}
		if last {
			m.outlet.watcher.resume.Store(list.revision + 1)
			return nil
		}
	}
}

// follow sends changes until the watch ends.
func (m *messenger[M, E]) follow(ctx context.Context, w *watcher) error {
	progress := time.NewTicker(watchProgress)
	defer progress.Stop()
	for {
		next, err := w.take(ctx)
		if err != nil {
			return err
		}
		if len(next.revisions) > 0 {
			if err := m.sendRevisions(ctx, next); err != nil {
				return err
			}
			continue
		}
		if !next.idle {
			continue
		}
		select {
		case <-w.wake:
		case <-w.cut:
		case <-progress.C:
			if err := m.sendProgress(ctx, w); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendRevisions sends revisions, each as a whole: as many together as fit into a message, or one in several.
func (m *messenger[M, E]) sendRevisions(ctx context.Context, t taken) error {
	view := m.view()
	for i, r := range t.revisions {
		events, err := m.changed(view, r)
		if err != nil {
			return err
		}
		m.reached = r.Number
		for _, e := range events {
			if err := m.add(ctx, view, e); err != nil {
				return err
			}
		}
		last := i == len(t.revisions)-1
		switch {
		case last && len(m.events) > 0:
			err = m.send(ctx, view, t.upTo)
		case m.bytes >= watchBytes/2:
			err = m.send(ctx, view, r.Number)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *messenger[M, E]) sendProgress(ctx context.Context, w *watcher) error {
	next, err := w.take(ctx)
	if err != nil {
		return err
	}
	if len(next.revisions) > 0 {
		return m.sendRevisions(ctx, next)
	}
	return m.send(ctx, m.view(), next.upTo)
}

func (m *messenger[M, E]) view() state.View {
	if m.wantsView {
		return m.node.View()
	}
	return nil
}

// add puts an event into the message, which is sent first where it is full.
func (m *messenger[M, E]) add(ctx context.Context, view state.View, e E) error {
	if m.bytes >= watchBytes {
		if err := m.send(ctx, view, 0); err != nil {
			return err
		}
	}
	m.events = append(m.events, e)
	m.bytes += m.size(e)
	return nil
}

func (m *messenger[M, E]) send(ctx context.Context, view state.View, revision uint64) error {
	m.reached = max(m.reached, revision)
	message := m.message(view, &metasrvpb.ResponseHeader{Revision: m.reached}, m.events, revision)
	m.events, m.bytes = m.events[:0:0], 0
	if err := m.outlet.send(ctx, message); err != nil {
		return err
	}
	if revision > 0 {
		m.outlet.watcher.resume.Store(revision + 1)
	}
	return nil
}

// outlet sends the messages of a watch from a goroutine of its own: a client that reads nothing blocks that one, and
// the watch can end nevertheless, which ends the stream and with it the goroutine.
type outlet struct {
	watcher  *watcher
	messages chan any
	sent     chan error
	stall    *time.Timer
}

func newOutlet(s *services, stream grpc.ServerStream, w *watcher) *outlet {
	o := &outlet{watcher: w, messages: make(chan any), sent: make(chan error, 1), stall: time.NewTimer(watchStall)}
	s.helpers.Go(func() {
		for m := range o.messages {
			o.sent <- stream.SendMsg(m)
		}
	})
	return o
}

// close ends the goroutine when the message under way is sent, or the stream has ended.
func (o *outlet) close() {
	o.stall.Stop()
	close(o.messages)
}

// send returns when the message was given to the connection. After an error there is no other message.
func (o *outlet) send(ctx context.Context, m any) error {
	o.watcher.sending.Store(1 + o.watcher.hub.changed.Load())
	defer o.watcher.sending.Store(0)
	o.messages <- m
	o.stall.Reset(watchStall)
	select {
	case err := <-o.sent:
		return err
	case <-o.watcher.cut:
		return o.watcher.why()
	case <-o.stall.C:
		return o.watcher.errSlow("it has taken no message for %s", watchStall)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuseWatch returns ErrInvalidArgument where a request can't be served.
func refuseWatch(startRevision uint64, changesOnly bool) error {
	if startRevision > 0 && changesOnly {
		return metasrv.InvalidArgument("changes_only", "is for watches from the present on, but start_revision is %d", startRevision)
	}
	return nil
}
