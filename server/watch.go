package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

const (
	// watchProgress is how often an idle watch is told how far it has come.
	watchProgress = 5 * time.Second
	// watchBytes is the size at which a message of a watch is full.
	watchBytes = 1 << 20
)

// Watch streams the changes of routes from the member's own state, so every member serves it.
func (s routerService) Watch(req *metasrvpb.WatchRoutesRequest, stream grpc.ServerStreamingServer[metasrvpb.WatchRoutesResponse]) error {
	ctx := stream.Context()
	view, err := s.waitRevision(ctx, req.GetHeader().GetMinRevision())
	if err != nil {
		return err
	}
	from := req.GetStartRevision()
	if from == 0 {
		if err := sendRoutes(view, stream); err != nil {
			return err
		}
		from = view.Revision() + 1
	}
	for {
		revisions, err := s.changes(ctx, from)
		if err != nil {
			return err
		}
		resp := &metasrvpb.WatchRoutesResponse{Revision: from - 1}
		if len(revisions) > 0 {
			if resp, err = s.routeChanges(ctx, revisions); err != nil {
				return err
			}
			from = resp.GetRevision() + 1
			if len(resp.GetEvents()) == 0 {
				continue
			}
		}
		resp.Header = revision(s.node.View())
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// changes waits for whole revisions from one on. It returns none where there were none for a while.
func (s *services) changes(ctx context.Context, from uint64) ([]state.Revision, error) {
	bounded, cancel := context.WithTimeout(ctx, watchProgress)
	defer cancel()
	revisions, err := s.node.Read(bounded, from)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return revisions, err
}

// routeChanges returns what revisions changed of routes: of as many whole ones, from the first on, as fit into a
// message.
func (s *services) routeChanges(ctx context.Context, revisions []state.Revision) (*metasrvpb.WatchRoutesResponse, error) {
	last := revisions[len(revisions)-1].Number
	view, err := s.node.WaitRevision(ctx, last)
	if err != nil {
		return nil, err
	}
	b := router.NewBuilder(addresses(view))
	resp := &metasrvpb.WatchRoutesResponse{}
	size := 0
	for _, r := range revisions {
		events, err := router.Events(view, r, b)
		if err != nil {
			return nil, err
		}
		resp.Revision = r.Number
		for _, e := range events {
			resp.Events = append(resp.Events, e)
			size += proto.Size(e)
		}
		if size >= watchBytes {
			break
		}
	}
	resp.Peers = b.Peers()
	return resp, nil
}

// sendRoutes sends the present routes. Only the last message is a point to resume from.
func sendRoutes(view state.View, stream grpc.ServerStreamingServer[metasrvpb.WatchRoutesResponse]) error {
	b := router.NewBuilder(addresses(view))
	resp, size := &metasrvpb.WatchRoutesResponse{}, 0
	send := func() error {
		resp.Header, resp.Peers = revision(view), b.Peers()
		return stream.Send(resp)
	}
	for record, err := range router.Tables(view) {
		if err != nil {
			return err
		}
		if record.Table.GetState() != metasrvpb.TableState_TABLE_STATE_PUBLIC {
			continue
		}
		event := &metasrvpb.RouteEvent{
			Revision: view.Revision(), Change: &metasrvpb.RouteEvent_Updated{Updated: b.Add(record)},
		}
		resp.Events = append(resp.Events, event)
		if size += proto.Size(event); size < watchBytes {
			continue
		}
		if err := send(); err != nil {
			return err
		}
		b, resp, size = router.NewBuilder(addresses(view)), &metasrvpb.WatchRoutesResponse{}, 0
	}
	resp.Revision = view.Revision()
	return send()
}
