package server

import (
	"iter"

	"google.golang.org/grpc"

	"github.com/metasrv/metasrv/kv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Watch streams the changes of a range of keys.
func (s storeService) Watch(req *metasrvpb.WatchRequest, stream grpc.ServerStreamingServer[metasrvpb.WatchResponse]) error {
	r := kv.Range{Key: req.GetKey(), End: req.GetRangeEnd()}
	if err := r.Validate(); err != nil {
		return err
	}
	if err := refuseWatch(req.GetStartRevision(), req.GetChangesOnly()); err != nil {
		return err
	}
	return serveWatch(s.services, stream, req.GetHeader(), req.GetStartRevision(), storeTopic(req, r))
}

func storeTopic(req *metasrvpb.WatchRequest, r kv.Range) topic[metasrvpb.WatchResponse, *metasrvpb.WatchEvent] {
	from, to := r.Bounds()
	t := topic[metasrvpb.WatchResponse, *metasrvpb.WatchEvent]{
		ranges: []keyRange{{from, to}},
		changed: func(_ state.View, revision state.Revision) ([]*metasrvpb.WatchEvent, error) {
			return storeEvents(req, revision)
		},
		size: func(e *metasrvpb.WatchEvent) int { return pairSize(e.GetKv()) + pairSize(e.GetPrevKv()) },
		message: func(_ state.View, h *metasrvpb.ResponseHeader, events []*metasrvpb.WatchEvent, resume uint64) *metasrvpb.WatchResponse {
			return &metasrvpb.WatchResponse{Header: h, Events: events, Revision: resume}
		},
	}
	if !req.GetChangesOnly() {
		t.present = func(view state.View) iter.Seq2[*metasrvpb.WatchEvent, error] { return presentPairs(view, r) }
	}
	return t
}

// presentPairs returns the pairs of a range as events.
func presentPairs(view state.View, r kv.Range) iter.Seq2[*metasrvpb.WatchEvent, error] {
	return func(yield func(*metasrvpb.WatchEvent, error) bool) {
		for pair, err := range kv.Scan(view, r) {
			if !yield(&metasrvpb.WatchEvent{Type: metasrvpb.WatchEvent_TYPE_PRESENT, Kv: pairOf(&pair)}, err) {
				return
			}
		}
	}
}

// storeEvents returns the changes of a revision that a watch asked for.
func storeEvents(req *metasrvpb.WatchRequest, r state.Revision) ([]*metasrvpb.WatchEvent, error) {
	events := make([]*metasrvpb.WatchEvent, 0, len(r.Changes))
	for i := range r.Changes {
		c := &r.Changes[i]
		if c.Value == nil && req.GetNoDelete() || c.Value != nil && req.GetNoPut() {
			continue
		}
		before, after, _, err := kv.Changed(c, r.Number)
		if err != nil {
			return nil, err
		}
		e := &metasrvpb.WatchEvent{Type: metasrvpb.WatchEvent_TYPE_PUT, Kv: pairOf(after)}
		if c.Value == nil {
			e.Type = metasrvpb.WatchEvent_TYPE_DELETE
		}
		if req.GetPrevKv() {
			e.PrevKv = pairOf(before)
		}
		events = append(events, e)
	}
	return events, nil
}

// pairSize returns about the bytes of a pair in a message.
func pairSize(p *metasrvpb.KeyValue) int { return len(p.GetKey()) + len(p.GetValue()) + 32 }
