package server

import (
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/heartbeat"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// Watch streams the changes of routes.
func (s routerService) Watch(req *metasrvpb.WatchRoutesRequest, stream grpc.ServerStreamingServer[metasrvpb.WatchRoutesResponse]) error {
	if err := refuseWatch(req.GetStartRevision(), req.GetChangesOnly()); err != nil {
		return err
	}
	t := topic[metasrvpb.WatchRoutesResponse, routeChange]{
		wantsView: true,
		ranges:    []keyRange{prefixRange(catalog.TablePrefix), prefixRange(router.RoutePrefix), prefixRange(heartbeat.NodePrefix)},
		lists:     &s.routeWatches.listings,
		changed: func(view state.View, r state.Revision) ([]routeChange, error) {
			return s.routeWatches.memo.events(view, r, routeChanges)
		},
		size:    routeChange.size,
		message: routesMessage,
	}
	if !req.GetChangesOnly() {
		t.present = presentRoutes
	}
	return serveWatch(s.services, stream, req.GetHeader(), req.GetStartRevision(), t)
}

// routeChange is the change of a table's route, or of the address of a node that routes may name.
type routeChange struct {
	router.Change
	moved *metasrvpb.Peer
}

func (c routeChange) size() int {
	switch {
	case c.Updated != nil:
		return proto.Size(c.Updated.Table) + proto.Size(c.Updated.Route)
	case c.Removed != nil:
		return proto.Size(c.Removed)
	}
	return proto.Size(c.moved)
}

func presentRoutes(view state.View) iter.Seq2[routeChange, error] {
	return func(yield func(routeChange, error) bool) {
		for record, err := range router.Tables(view) {
			if err == nil && record.Table.GetState() != metasrvpb.TableState_TABLE_STATE_PUBLIC {
				continue
			}
			if !yield(routeChange{Change: router.Change{Revision: view.Revision(), Updated: &record}}, err) {
				return
			}
		}
	}
}

func routeChanges(view state.View, r state.Revision) ([]routeChange, error) {
	changes, err := router.Changes(view, r)
	if err != nil {
		return nil, err
	}
	out := each(changes, func(c router.Change) routeChange { return routeChange{Change: c} })
	for i := range r.Changes {
		before, after, _, err := heartbeat.Changed(&r.Changes[i])
		if err != nil {
			return nil, err
		}
		if before != nil && after != nil && before.GetPeer().GetAddr() != after.GetPeer().GetAddr() {
			out = append(out, routeChange{Change: router.Change{Revision: r.Number}, moved: after.GetPeer()})
		}
	}
	return out, nil
}

func routesMessage(view state.View, h *metasrvpb.ResponseHeader, changes []routeChange, resume uint64) *metasrvpb.WatchRoutesResponse {
	b := router.NewBuilder(addresses(view))
	resp := &metasrvpb.WatchRoutesResponse{Header: h, Revision: resume}
	for _, c := range changes {
		if c.moved != nil {
			resp.Events = append(resp.Events, &metasrvpb.RouteEvent{
				Revision: c.Revision, Change: &metasrvpb.RouteEvent_Moved{Moved: c.moved},
			})
			continue
		}
		resp.Events = append(resp.Events, b.Event(c.Change))
	}
	resp.Peers = b.Peers()
	return resp
}
