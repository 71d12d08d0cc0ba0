package server

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/catalog"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Watch streams the changes of catalogs, schemas and tables.
func (s catalogService) Watch(req *metasrvpb.WatchCatalogRequest, stream grpc.ServerStreamingServer[metasrvpb.WatchCatalogResponse]) error {
	if err := refuseWatch(req.GetStartRevision(), req.GetChangesOnly()); err != nil {
		return err
	}
	t := topic[metasrvpb.WatchCatalogResponse, *metasrvpb.CatalogEvent]{
		ranges: each(catalog.Prefixes(), prefixRange),
		lists:  &s.catalogWatches.listings,
		changed: func(view state.View, r state.Revision) ([]*metasrvpb.CatalogEvent, error) {
			return s.catalogWatches.memo.events(view, r, catalogEvents)
		},
		size: func(e *metasrvpb.CatalogEvent) int { return proto.Size(e) },
		message: func(_ state.View, h *metasrvpb.ResponseHeader, events []*metasrvpb.CatalogEvent, resume uint64) *metasrvpb.WatchCatalogResponse {
			return &metasrvpb.WatchCatalogResponse{Header: h, Events: events, Revision: resume}
		},
	}
	if !req.GetChangesOnly() {
		t.present = catalog.Present
	}
	return serveWatch(s.services, stream, req.GetHeader(), req.GetStartRevision(), t)
}

func catalogEvents(_ state.View, r state.Revision) ([]*metasrvpb.CatalogEvent, error) {
	return catalog.Events(r)
}
