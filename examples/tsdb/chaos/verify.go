package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

// settleTimeout is how long a cluster may take to be whole again once nobody disturbs it.
const settleTimeout = 90 * time.Second

// regions returns all regions as metasrv has them.
func (c *chaos) regions(ctx context.Context) ([]*metasrvpb.RegionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := c.client.Cluster().ListRegions(ctx, &metasrvpb.ListRegionsRequest{})
	return answer.GetRegions(), err
}

func hasReplica(r *metasrvpb.RegionInfo, node uint64) bool {
	return slices.ContainsFunc(r.GetReplicas(), func(p *metasrvpb.Replica) bool { return p.GetPeer().GetId() == node })
}

func leaderOf(r *metasrvpb.RegionInfo) *metasrvpb.Replica {
	for _, p := range r.GetReplicas() {
		if p.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
			return p
		}
	}
	return nil
}

// settle waits until every region is led and has its replicas, all of them in sync, and metasrv has nothing left to do.
func (c *chaos) settle(ctx context.Context) error {
	began := time.Now()
	for {
		why := c.unsettled(ctx)
		if why == "" {
			c.out.Print("every region is led and has its replicas in sync, and no procedure runs, after %s", time.Since(began).Round(100*time.Millisecond))
			return nil
		}
		if err := c.cluster.Healthy(); err != nil {
			return err
		}
		if time.Since(began) > settleTimeout {
			return fmt.Errorf("seed %d: not whole again %s after the last fault: %s", c.seed, settleTimeout, why)
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// unsettled says what is not as it should be, empty where all is.
func (c *chaos) unsettled(ctx context.Context) string {
	regions, err := c.regions(ctx)
	if err != nil {
		return err.Error()
	}
	for _, r := range regions {
		if r.GetTableState() != metasrvpb.TableState_TABLE_STATE_PUBLIC {
			continue
		}
		name := fmt.Sprintf("region %d of %s", r.GetRegionId(), r.GetTableName().GetTableName())
		switch leader := leaderOf(r); {
		case leader == nil:
			return name + " has no leader"
		case r.GetProblem() != "":
			return name + ": " + r.GetProblem()
		case !c.epochs.knows(r.GetRegionId(), r.GetLeaderEpoch()):
			return name + ": the watch of its leaders is behind"
		}
		for _, p := range r.GetReplicas() {
			if !p.GetInSync() || p.GetLost() {
				return fmt.Sprintf("%s: replica %d on node %d is not in sync", name, p.GetReplicaId(), p.GetPeer().GetId())
			}
		}
	}
	running, err := c.client.Cluster().ListProcedures(ctx, &metasrvpb.ListProceduresRequest{})
	switch {
	case err != nil:
		return err.Error()
	case len(running.GetProcedures()) > 0:
		p := running.GetProcedures()[0]
		return fmt.Sprintf("procedure %d (region %d, node %d) waits for %s", p.GetProcedureId(), p.GetRegionId(), p.GetNodeId(), p.GetWaitingFor())
	}
	return ""
}

// verify reads everything back, through the frontends and from each replica, and judges what the datanodes wrote down.
func (c *chaos) verify(ctx context.Context) error {
	c.summary()
	for frontend := range c.dbs {
		for w := range writers {
			found, err := c.load.events(frontend, w, 0)
			if err != nil {
				return fmt.Errorf("reading everything back through frontend %d: %w", frontend, err)
			}
			if err := c.load.streams[w].expect(0).judge(found); err != nil {
				c.violated(fmt.Errorf("in the end, through frontend %d: %w", frontend, err))
			}
			values, err := c.load.values(frontend, w)
			if err != nil {
				return fmt.Errorf("reading everything back through frontend %d: %w", frontend, err)
			}
			if err := c.load.latest[w].judge(c.load.latest[w].expect(), values); err != nil {
				c.violated(fmt.Errorf("in the end, through frontend %d: %w", frontend, err))
			}
		}
	}
	if err := c.compareReplicas(ctx); err != nil {
		return err
	}
	acks, err := c.judge()
	c.out.Print("%d acknowledgements of datanodes under %d elections were looked at", acks, c.epochs.elections())
	return err
}

// judge judges what the datanodes wrote down so far.
func (c *chaos) judge() (acks int, err error) {
	journals, err := c.readJournals()
	if err != nil {
		return 0, err
	}
	for _, lines := range journals {
		for _, l := range lines {
			if l.kind == "ack" {
				acks++
			}
		}
	}
	if err := judgeJournals(journals, c.epochs); err != nil {
		c.violated(err)
	}
	return acks, nil
}

// compareReplicas reads each replica by itself: all have the same rows. A process that was still starting when the faults ended
// may leave the in-sync set once more, or have to connect to others first: then it waits until all is whole again.
func (c *chaos) compareReplicas(ctx context.Context) error {
	for deadline := time.Now().Add(settleTimeout); ; {
		err := c.compareReplicasOnce(ctx)
		passes := status.Code(err) == codes.Unavailable || status.Code(err) == codes.FailedPrecondition
		if !passes || time.Now().After(deadline) || !sleep(ctx, time.Second) {
			return err
		}
		c.out.Print("again: %v", err)
		if err := c.settle(ctx); err != nil {
			return err
		}
	}
}

func (c *chaos) compareReplicasOnce(ctx context.Context) error {
	regions, err := c.regions(ctx)
	if err != nil {
		return err
	}
	compared := 0
	for _, r := range regions {
		var first []string
		for i, p := range r.GetReplicas() {
			rows, err := c.dump(ctx, r, p)
			if err != nil {
				return fmt.Errorf("rows of replica %d of region %d on node %d: %w", p.GetReplicaId(), r.GetRegionId(), p.GetPeer().GetId(), err)
			}
			compared++
			if i == 0 {
				first = rows
				continue
			}
			if !slices.Equal(first, rows) {
				c.violated(fmt.Errorf("region %d of %s: replica %d has %d rows, replica %d has %d, and they differ", r.GetRegionId(),
					r.GetTableName().GetTableName(), r.GetReplicas()[0].GetReplicaId(), len(first), p.GetReplicaId(), len(rows)))
			}
		}
	}
	c.out.Print("%d replicas of %d regions have the same rows as the others of their regions", compared, len(regions))
	return nil
}

// dump returns the rows of one replica as texts, sorted.
func (c *chaos) dump(ctx context.Context, r *metasrvpb.RegionInfo, p *metasrvpb.Replica) ([]string, error) {
	// Directly: the address that metasrv has is that of a proxy.
	conn, err := grpc.NewClient(c.cluster.Datanodes[p.GetPeer().GetId()-1].Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	columns := []string{"writer", "seq"}
	if r.GetTableName().GetTableName() == "latest" {
		columns = []string{"writer", "k", "v"}
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	stream, err := tsdbpb.NewDatanodeClient(conn).Query(ctx, &tsdbpb.QueryRequest{
		Route:   &tsdbpb.Route{RegionId: r.GetRegionId(), ReplicaId: p.GetReplicaId(), LeaderEpoch: r.GetLeaderEpoch()},
		Columns: columns,
	})
	if err != nil {
		return nil, err
	}
	var rows []string
	for {
		answer, err := stream.Recv()
		if err != nil {
			sort.Strings(rows)
			return rows, endOfStream(err)
		}
		for i := range int(answer.GetRows().GetRowCount()) {
			row := ""
			for _, column := range answer.GetRows().GetColumns() {
				row += fmt.Sprint(batch.Value(column, i)) + " "
			}
			rows = append(rows, row)
		}
	}
}

// endOfStream returns nil for the end of an answer.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
