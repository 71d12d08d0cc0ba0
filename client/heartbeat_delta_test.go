package client

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Whoever applies the deltas of one stream has what the node has, and its digest.
func TestDeltas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d deltas
		had := map[replicaKey]*metasrvpb.RegionStat{}
		for beat := range rapid.IntRange(1, 80).Draw(t, "beats") {
			list := drawStats(t)
			request := &metasrvpb.HeartbeatRequest{}
			full := beat == 0 || rapid.IntRange(0, 20).Draw(t, "full") == 0
			d.fill(request, list, countsOf(HeartbeatReport{RegionStats: list}), full)
			if full && !request.GetFullReport() {
				t.Fatal("a full report was asked for")
			}
			if request.GetFullReport() {
				clear(had)
			}
			for _, s := range request.GetRegionStats() {
				had[keyOf(s)] = s
			}
			for _, r := range request.GetRemovedReplicas() {
				delete(had, replicaKey{r.GetRegionId(), r.GetReplicaId()})
			}
			if len(had) != len(list) || request.GetDigest() != ReplicaDigest(list) {
				t.Fatalf("%d replicas are known of %d", len(had), len(list))
			}
			for _, s := range list {
				if !proto.Equal(had[keyOf(s)], s) {
					t.Fatalf("known is %v, the node has %v", had[keyOf(s)], s)
				}
			}
		}
	})
}

func drawStats(t *rapid.T) []*metasrvpb.RegionStat {
	var list []*metasrvpb.RegionStat
	for region := range rapid.Uint64Range(0, 6).Draw(t, "regions") {
		if rapid.IntRange(0, 4).Draw(t, "absent") == 0 {
			continue
		}
		s := leads(1, rapid.Uint64Range(1, 2).Draw(t, "epoch"))
		s.RegionId = region
		s.Wcus = rapid.Uint64Range(0, 1).Draw(t, "wcus")
		s.ApproximateRows = rapid.Uint64Range(0, 1).Draw(t, "rows")
		if rapid.Bool().Draw(t, "states") {
			s.ReplicaStates = []*metasrvpb.ReplicaState{{ReplicaId: 3, CaughtUp: rapid.Bool().Draw(t, "caught up")}}
		}
		list = append(list, s)
	}
	return list
}

// No field of a replica can change without metasrv being told.
func TestSameSeesEveryField(t *testing.T) {
	fields := (&metasrvpb.RegionStat{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		changed := &metasrvpb.RegionStat{}
		m := changed.ProtoReflect()
		switch {
		case field.Name() == "rcus", field.Name() == "wcus":
			continue // counted apart
		case field.IsMap():
			changed.Attrs = map[string]string{"a": "b"}
		case field.IsList():
			changed.ReplicaStates = []*metasrvpb.ReplicaState{{}}
		case field.Kind() == protoreflect.MessageKind:
			changed.TableName = &metasrvpb.TableName{TableName: "t"}
		case field.Kind() == protoreflect.BoolKind:
			m.Set(field, protoreflect.ValueOfBool(true))
		case field.Kind() == protoreflect.EnumKind:
			m.Set(field, protoreflect.ValueOfEnum(1))
		default:
			m.Set(field, protoreflect.ValueOfUint64(1))
		}
		if same(&metasrvpb.RegionStat{}, changed) || same(changed, &metasrvpb.RegionStat{}) {
			t.Errorf("a change of %s is not reported", field.Name())
		}
		if !same(changed, proto.CloneOf(changed)) {
			t.Errorf("with %s set, a replica that doesn't change is reported again", field.Name())
		}
	}
	if same(&metasrvpb.RegionStat{Wcus: 1}, &metasrvpb.RegionStat{}) {
		t.Error("that there are no more writes is not reported")
	}
}

// A member that doesn't answer with digests may not know of changes only: it is told everything, as is one that asks for it,
// and each at the beginning of a stream.
func TestTaskReportsChangesOnly(t *testing.T) {
	m, f := leaderMember(t)
	f.interval = 100 * time.Millisecond // so that a slow machine doesn't take the member for silent
	var mu sync.Mutex
	list := []*metasrvpb.RegionStat{leads(1, 1), leads(2, 1)}
	beatFrom(t, dial(t, nil, m.addr), func(cfg *HeartbeatConfig) {
		cfg.Collect = func(context.Context) (HeartbeatReport, error) {
			mu.Lock()
			defer mu.Unlock()
			return HeartbeatReport{RegionStats: slices.Clone(list)}, nil
		}
	})
	for _, b := range f.await(t, 4) {
		if !b.GetFullReport() || len(b.GetRegionStats()) != 2 {
			t.Fatalf("told a member without digests %v", b)
		}
	}
	judge := func(request *metasrvpb.HeartbeatRequest, response *metasrvpb.HeartbeatResponse) {
		response.Digest = request.Digest
	}
	f.set(func() { f.judge = judge })
	last := func() *metasrvpb.HeartbeatRequest { all := f.all(); return all[len(all)-1] }
	eventually(t, "a beat without replicas", func() bool { return !last().GetFullReport() && len(last().GetRegionStats()) == 0 })

	mu.Lock()
	list = []*metasrvpb.RegionStat{leads(2, 2)}
	mu.Unlock()
	eventually(t, "the change", func() bool {
		for _, b := range f.all() {
			if len(b.GetRegionStats()) == 1 && len(b.GetRemovedReplicas()) == 1 {
				return !b.GetFullReport() && b.GetRemovedReplicas()[0].GetReplicaId() == 10 && b.GetRegionStats()[0].GetLeaderEpoch() == 2
			}
		}
		return false
	})
	asked := false
	f.set(func() {
		f.judge = func(request *metasrvpb.HeartbeatRequest, response *metasrvpb.HeartbeatResponse) {
			judge(request, response)
			response.FullReportWanted, asked = !asked, true
		}
	})
	n := len(f.all())
	full := func() (found int) {
		for _, b := range f.all()[n:] {
			if b.GetFullReport() {
				found++
			}
		}
		return found
	}
	eventually(t, "a full report", func() bool { return full() == 1 })
	f.await(t, len(f.all())+3)
	if full() != 1 {
		t.Errorf("%d full reports, asked for one", full())
	}
	var streams int
	f.set(func() { f.end, streams = notLeader(""), f.streams })
	eventually(t, "a refused stream", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.streams > streams })
	n = len(f.all())
	f.set(func() { f.end = nil })
	if first := f.await(t, n+1)[n]; first.GetFullReport() || len(first.GetRegionStats()) > 0 || first.GetDigest() != ReplicaDigest(list) {
		t.Errorf("a stream began with %v", first)
	}
	// A member that never asks is told nevertheless.
	eventually(t, "a full report", func() bool { return full() == 2 })
	for i, b := range f.all()[n : len(f.all())-1] {
		if b.GetFullReport() && i != maxUnlisted {
			t.Errorf("beat %d of the stream is a full report", i+1)
		}
	}
}

// A beat in which nothing changed is small, however many replicas there are.
func TestUnchangedBeatIsSmall(t *testing.T) {
	const limit = 200
	m, f := leaderMember(t)
	f.interval = 2 * time.Second // so that a slow machine doesn't take the member for silent
	f.judge = func(request *metasrvpb.HeartbeatRequest, response *metasrvpb.HeartbeatResponse) {
		response.Digest = request.Digest
	}
	list := make([]*metasrvpb.RegionStat, 10_000)
	for i := range list {
		list[i] = leads(1, 1)
		list[i].RegionId = uint64(i + 1)
	}
	c := dial(t, func(cfg *Config) { cfg.AttemptTimeout = time.Minute }, m.addr)
	task, _ := beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.Interval = f.interval
		cfg.Collect = func(context.Context) (HeartbeatReport, error) { return HeartbeatReport{RegionStats: list}, nil }
	})
	eventually(t, "the first answer", func() bool { return task.Incarnation() != 0 })
	n := len(f.all())
	task.Beat()
	all := f.await(t, n+1)
	if size := proto.Size(all[n]); all[n].GetFullReport() || size > limit {
		t.Errorf("an unchanged beat of 10,000 replicas has %d bytes, at most %d are meant", size, limit)
	}
}

// BenchmarkDeltas is what the node itself pays for a beat.
func BenchmarkDeltas(b *testing.B) {
	for _, changed := range []int{0, 500} {
		b.Run(fmt.Sprintf("%d of 10000", changed), func(b *testing.B) {
			list := make([]*metasrvpb.RegionStat, 10_000)
			for i := range list {
				list[i] = leads(1, 1)
				list[i].RegionId = uint64(i + 1)
			}
			var d deltas
			k := NewRegionKeeper()
			for _, s := range list {
				k.Lead(metasrv.RegionID(s.RegionId), metasrv.ReplicaID(s.ReplicaId), s.LeaderEpoch)
			}
			d.fill(&metasrvpb.HeartbeatRequest{}, list, counts{}, true)
			b.ReportAllocs()
			for b.Loop() {
				for i := range changed {
					list[i*20].ApproximateRows++
				}
				d.beats = 0
				request := &metasrvpb.HeartbeatRequest{}
				d.fill(request, list, countsOf(HeartbeatReport{RegionStats: list}), false)
				k.granted(k.sending(list), time.Second, nil)
			}
		})
	}
}
