package client

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// lifeMember plays a member of a cluster with lives; it counts what it executes.
type lifeMember struct {
	*fakeMember
	life     atomic.Pointer[life]
	executed atomic.Int32
	sessions atomic.Uint64
}

func startLifeMember(t *testing.T, l life) *lifeMember {
	m := &lifeMember{fakeMember: startMember(t)}
	m.life.Store(&l)
	m.onUnary(func(_ context.Context, _ string, request proto.Message) (proto.Message, error) {
		l := m.life.Load()
		h := &metasrvpb.ResponseHeader{ClusterId: l.cluster, ClusterIncarnation: l.incarnation, ClusterGeneration: l.generation}
		switch r := request.(type) {
		case *metasrvpb.OpenSessionRequest:
			return &metasrvpb.OpenSessionResponse{Header: h, Session: l.generation<<32 + m.sessions.Add(1)}, nil
		case *metasrvpb.ListMembersRequest:
			return &metasrvpb.ListMembersResponse{Header: h}, nil
		case *metasrvpb.PutRequest:
			switch {
			case r.Header.ClusterIncarnation != 0 && r.Header.ClusterIncarnation != l.incarnation:
				return nil, refusal(metasrv.ErrClusterMismatch.With("the request is for another life"))
			case r.Header.RequestId.Session>>32 != l.generation:
				return nil, refusal(metasrv.ErrSessionExpired)
			case r.Header.ClusterIncarnation != l.incarnation:
				return nil, refusal(metasrv.ErrInternal.With("a write names no life"))
			}
			m.executed.Add(1)
			return &metasrvpb.PutResponse{Header: h}, nil
		default:
			return &metasrvpb.RangeResponse{Header: h}, nil
		}
	})
	return m
}

// Rule 14: a write that was begun in a life that has ended is refused by name, also where the client had a session, and
// the next one is executed in a session of the new life.
func TestWritesOfAnEarlierLifeAreRefused(t *testing.T) {
	for name, l := range map[string]life{"the first life": {cluster: 11}, "a later life": {11, 77, 1}} {
		t.Run(name, func(t *testing.T) {
			m := startLifeMember(t, l)
			c := dial(t, nil, m.addr)
			if _, err := put(t.Context(), c, "a"); err != nil {
				t.Fatal(err)
			}
			m.life.Store(&life{11, 99, l.generation + 1})
			_, err := put(t.Context(), c, "a")
			wantIs(t, err, metasrv.ErrClusterMismatch)
			if n := m.executed.Load(); n != 1 {
				t.Errorf("%d writes were executed, want 1", n)
			}
			if _, err := put(t.Context(), c, "a"); err != nil {
				t.Errorf("the next write: %v", err)
			}
			if c.lifeNumber() != 1 {
				t.Errorf("%d changes of life", c.lifeNumber())
			}
		})
	}
}

// Answers of members that live in the past are not used; another member is asked.
func TestAnswersOfAnEarlierLifeAreNotUsed(t *testing.T) {
	past, present := startLifeMember(t, life{11, 77, 1}), startLifeMember(t, life{11, 99, 2})
	c := dial(t, nil, present.addr, past.addr)
	if err := rangeAll(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.members.lead(past.addr)
	if err := rangeAll(t.Context(), c); err != nil {
		t.Errorf("a read: %v", err)
	}
	c.members.lead(past.addr)
	if _, err := put(t.Context(), c, "a"); err != nil {
		t.Errorf("a write: %v", err)
	}
	if past.executed.Load() != 0 || present.executed.Load() != 1 || c.lifeNumber() != 0 {
		t.Errorf("%d writes in the past, %d in the present, %d changes of life", past.executed.Load(), present.executed.Load(), c.lifeNumber())
	}
	present.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := rangeAll(ctx, c); err == nil || !strings.Contains(err.Error(), "which was restored or recovered since") {
		t.Errorf("a read where only the past answers: %v", err)
	}
}

// Two lives from one state, and two clusters, are never mixed.
func TestClustersAreNotMixed(t *testing.T) {
	for name, tt := range map[string]struct {
		other life
		want  string
	}{
		"twin":    {life{11, 98, 2}, "restored or recovered twice"},
		"another": {life{12, 99, 2}, "is cluster 12, not 11"},
	} {
		t.Run(name, func(t *testing.T) {
			m := startLifeMember(t, life{11, 99, 2})
			c := dial(t, nil, m.addr)
			if err := rangeAll(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			m.life.Store(&tt.other)
			err := rangeAll(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			wantIs(t, err, metasrv.ErrClusterMismatch)
		})
	}
}

// Routes of the lost state are forgotten, whichever answer tells of the new life.
func TestRoutesOfAnEarlierLifeAreForgotten(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 1))
	c := s.cache(t)
	var number uint64
	c.lifeNumber = func() uint64 { return number }
	mustGet(t, c, "cpu")
	s.put(routeOf("cpu", 2048, 1))
	if r := mustGet(t, c, "cpu"); r.ID != 1024 {
		t.Errorf("fetched again without a reason: table %d", r.ID)
	}
	number++
	if r := mustGet(t, c, "cpu"); r.ID != 2048 {
		t.Errorf("the route of the lost state is still used: table %d", r.ID)
	}
	client := dial(t, nil, deadAddr(t))
	client.lives.number.Store(7)
	if got := NewRouteCache(client).lifeNumber(); got != 7 {
		t.Errorf("a cache on a client sees life %d", got)
	}
}

// A node does nothing that a metasrv leader of the past asks for, and goes on in the new life by itself.
func TestHeartbeatsIgnoreAnEarlierLife(t *testing.T) {
	m, f := leaderMember(t)
	f.cluster = 11
	f.payload = [][]byte{dropRegion(t, 1)}
	c := dial(t, nil, m.addr)
	if err := c.lives.observe("elsewhere", &metasrvpb.RangeResponse{Header: &metasrvpb.ResponseHeader{ClusterId: 11, ClusterIncarnation: 99, ClusterGeneration: 1}}); err != nil {
		t.Fatal(err)
	}
	var done atomic.Int32
	task, _ := beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.OnInstruction = func(context.Context, *metasrvpb.Instruction) error {
			done.Add(1)
			return nil
		}
	})
	f.await(t, 3)
	if task.Incarnation() != 0 || done.Load() != 0 {
		t.Errorf("registered as %d, %d instructions done for a metasrv leader of the past", task.Incarnation(), done.Load())
	}
	f.set(func() { f.life = life{11, 99, 1} })
	eventually(t, "the node is registered in the new life", func() bool { return task.Incarnation() == 5 && done.Load() > 0 })
}
