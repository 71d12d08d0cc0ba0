package client

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// life is one life of a cluster: it begins another one when it is restored or recovered.
type life struct {
	cluster, incarnation uint64
	// generation counts the lives before it.
	generation uint64
}

// lives knows the cluster's present life by the headers of answers. What was learned of one life is not used in the
// next: revisions, routes and sessions of the lost state may mean something else there. Answers of an earlier one don't
// count, for members of it may still run for a moment.
type lives struct {
	logger *slog.Logger
	// changed is called when another life has begun.
	changed func()

	present atomic.Pointer[life]
	// number counts the changes.
	number atomic.Uint64
	mu     sync.Mutex
}

// observe takes in what a member answered. An error says that its answer is not to be used.
func (l *lives) observe(member string, answer any) error {
	a, ok := answer.(interface {
		GetHeader() *metasrvpb.ResponseHeader
	})
	if !ok {
		return nil
	}
	h := a.GetHeader()
	if h.GetClusterId() == 0 {
		return nil
	}
	now := life{h.GetClusterId(), h.GetClusterIncarnation(), h.GetClusterGeneration()}
	if known := l.present.Load(); known != nil && *known == now {
		return nil
	}
	return l.compare(member, now)
}

func (l *lives) compare(member string, now life) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.present.Load()
	switch {
	case known == nil:
		l.present.Store(&now)
		return nil
	case *known == now:
		return nil
	case known.cluster != now.cluster:
		return errOtherCluster(member, now.cluster, known.cluster)
	case now.generation < known.generation:
		return status.Errorf(codes.Unavailable, "metasrv at %s is in life %016x of cluster %d, which was restored or recovered since: its answers don't count",
			member, now.incarnation, now.cluster)
	case now.generation == known.generation:
		return metasrv.ErrClusterMismatch.With("metasrv at %s is in life %016x of cluster %d, others in life %016x: the cluster was restored or recovered twice from the same state; end one of the two",
			member, now.incarnation, now.cluster, known.incarnation)
	}
	l.logger.Warn("the cluster was restored or recovered: what was known of it is forgotten",
		"member", member, "cluster_id", now.cluster, "incarnation", now.incarnation, "before", known.incarnation)
	l.present.Store(&now)
	l.number.Add(1)
	l.changed()
	return nil
}

// incarnation returns the present life, 0 for the first one, and where it is not known.
func (l *lives) incarnation() uint64 {
	if known := l.present.Load(); known != nil {
		return known.incarnation
	}
	return 0
}

// lifeNumber changes when the cluster has begun another life.
func (c *Client) lifeNumber() uint64 { return c.lives.number.Load() }

// meet asks a member that refused a request for its life, since the refusal says that in words only. An error says that
// it is the member which lives in the past.
func (c *Client) meet(ctx context.Context, member string) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
	defer cancel()
	cc, release, err := c.conns.use(member)
	if err != nil {
		return nil //nolint:nilerr // its refusal must do
	}
	defer release()
	answer, err := metasrvpb.NewClusterClient(cc).ListMembers(ctx, &metasrvpb.ListMembersRequest{Header: &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE}})
	if err != nil {
		return nil //nolint:nilerr // its refusal must do
	}
	return c.lives.observe(member, answer)
}

// errLifeEnded is the answer to a write that was begun in a life which has ended.
func errLifeEnded(method string) error {
	e := metasrv.ErrClusterMismatch.With("%s was not executed: the cluster was restored or recovered meanwhile; read again what it was based on", method)
	return newError(method, status.Error(codes.FailedPrecondition, e.Message), nil, e)
}
