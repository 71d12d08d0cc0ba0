package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

const (
	// createConcurrency is how many replicas of a table are created at a time.
	createConcurrency = 16
	// commitTime is the part of the creation deadline that is left for the commit.
	commitTime = 3 * time.Second
	// abortTimeout bounds what a failed creation spends on being given up at once; at the deadline metasrv does
	// it by itself.
	abortTimeout = 3 * time.Second
)

// CreateTable has metasrv plan the table, creates all replicas of all regions on the datanodes, and commits. On an
// error the table doesn't exist, or metasrv drops it at the creation deadline.
func (c *Cluster) CreateTable(ctx context.Context, t *NewTable) error {
	resp, err := c.router.Create(ctx, &metasrvpb.CreateRequest{
		TableName:     nameProto(t.Name),
		PartitionRule: t.Rule,
		Schema:        t.Schema,
		Replicas:      t.Replicas,
	})
	if err != nil {
		return fmt.Errorf("create table %s: %w", t.Name, plain(err))
	}
	if len(resp.GetTableRoutes()) != 1 {
		return metasrv.ErrInternal.With("create table %s: answer has %d routes", t.Name, len(resp.GetTableRoutes()))
	}
	plan := resp.GetTableRoutes()[0]
	created, err := c.createReplicas(ctx, t, plan, resp.GetPeers())
	if err == nil {
		err = c.commit(ctx, plan, created)
	}
	if err != nil {
		return c.abort(ctx, t, plan, err)
	}
	c.routes.Invalidate(t.Name, 0)
	return nil
}

func (c *Cluster) createReplicas(
	ctx context.Context, t *NewTable, plan *metasrvpb.TableRoute, peers []*metasrvpb.Peer,
) ([]*metasrvpb.CreatedReplica, error) {
	route, err := client.NewTableRoute(plan, peers)
	if err != nil {
		return nil, err
	}
	deadline := time.Duration(plan.GetCreationDeadlineMs()) * time.Millisecond //nolint:gosec // minutes
	ctx, cancel := context.WithTimeout(ctx, max(deadline/2, deadline-commitTime))
	defer cancel()
	var mu sync.Mutex
	var created []*metasrvpb.CreatedReplica
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(createConcurrency)
	for i := range route.Regions {
		r := &route.Regions[i]
		for k := range len(r.Followers) + 1 {
			g.Go(func() error {
				replica, err := c.createReplica(ctx, t, route, r, k)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				created = append(created, replica)
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return created, nil
}

// createReplica creates replica k of a region: 0 is the leader, the others are the followers.
func (c *Cluster) createReplica(
	ctx context.Context, t *NewTable, route *client.TableRoute, r *client.Region, k int,
) (*metasrvpb.CreatedReplica, error) {
	all := append([]client.Endpoint{r.Leader}, r.Followers...)
	self := all[k]
	request := &tsdbpb.CreateRegionRequest{
		Route:           routeProto(route, r, self),
		ConfVersion:     r.ConfVersion,
		Role:            metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER,
		TableName:       nameProto(t.Name),
		Schema:          t.Schema,
		LeaderReplicaId: uint64(r.Leader.ReplicaID),
	}
	if k == 0 {
		request.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	}
	for i, e := range all {
		if i != k {
			request.Peers = append(request.Peers, &tsdbpb.ReplicaPeer{
				ReplicaId: uint64(e.ReplicaID),
				Peer:      &metasrvpb.Peer{Id: uint64(e.NodeID), Addr: e.Addr},
			})
		}
	}
	resp, err := c.createRegion(ctx, self, request)
	if err != nil {
		return nil, fmt.Errorf("create region %s on node %s at %s: %w", r.ID, self.NodeID, self.Addr, err)
	}
	return &metasrvpb.CreatedReplica{
		RegionId: uint64(r.ID), ReplicaId: uint64(self.ReplicaID), NodeId: uint64(self.NodeID),
		Incarnation: resp.GetIncarnation(),
	}, nil
}

// createRegion repeats the call while it may still succeed: repeating it changes nothing.
func (c *Cluster) createRegion(
	ctx context.Context, on client.Endpoint, request *tsdbpb.CreateRegionRequest,
) (*tsdbpb.CreateRegionResponse, error) {
	node, err := c.nodes.get(on.Addr)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		callCtx, cancel := context.WithTimeout(ctx, attemptTimeout)
		resp, err := node.CreateRegion(callCtx, request)
		cancel()
		if err == nil || !isTransient(err) || ctx.Err() != nil {
			return resp, err
		}
		if pause(ctx, attempt) != nil {
			return nil, err
		}
	}
}

func (c *Cluster) commit(ctx context.Context, plan *metasrvpb.TableRoute, created []*metasrvpb.CreatedReplica) error {
	_, err := c.catalog.CommitTable(ctx, &metasrvpb.CommitTableRequest{
		TableId:       plan.GetTable().GetId(),
		CreationToken: plan.GetCreationToken(),
		Replicas:      created,
	})
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// abort gives a creation up because of cause, which it returns, unless the table turns out to be committed.
func (c *Cluster) abort(ctx context.Context, t *NewTable, plan *metasrvpb.TableRoute, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	id := plan.GetTable().GetId()
	_, err := c.catalog.AbortTable(ctx, &metasrvpb.AbortTableRequest{
		TableId: id, CreationToken: plan.GetCreationToken(), Reason: shorten(cause.Error()),
	})
	if errors.Is(err, metasrv.ErrCreationEnded) {
		got, err := c.catalog.GetTable(ctx, &metasrvpb.GetTableRequest{TableId: id})
		if err == nil && got.GetTable().GetState() == metasrvpb.TableState_TABLE_STATE_PUBLIC {
			c.routes.Invalidate(t.Name, 0)
			return nil
		}
	}
	if err != nil && !errors.Is(err, metasrv.ErrCreationEnded) {
		c.cfg.Logger.Warn("creation is left to its deadline", "table_id", id, "error", err)
	}
	return fmt.Errorf("create table %s: %w", t.Name, cause)
}

func routeProto(t *client.TableRoute, r *client.Region, e client.Endpoint) *tsdbpb.Route {
	return &tsdbpb.Route{
		RegionId: uint64(r.ID), ReplicaId: uint64(e.ReplicaID), LeaderEpoch: r.LeaderEpoch, RouteVersion: t.Version,
	}
}

// maxReason is less than what metasrv keeps of a reason, in bytes.
const maxReason = 1000

// shorten cuts a text that is too long for a reason: refused as such, it would keep the name of the table taken until
// the deadline.
func shorten(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "…"
}
