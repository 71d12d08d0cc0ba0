package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"

	"github.com/metasrv/metasrv/examples/tsdb/batch"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
)

// Scan reads the regions that the conditions leave, several at a time, each from its leader or else from a follower: from
// one that was in sync after the scan had begun, so that it has every row that was acknowledged before. Rows come in no
// order. An error after the first rows of a region fails the whole scan: it is never partial.
func (c *Cluster) Scan(ctx context.Context, t *Table, q Query) (RowIter, error) {
	route, err := c.route(ctx, t)
	if err != nil {
		return nil, err
	}
	tasks, err := client.PlanSelect(route, partitionConditions(q.Conditions), client.LeaderFirst)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &scan{
		c: c, table: t, query: q, filters: filters(q.Conditions),
		batches: make(chan *tsdbpb.RowBatch, 1), cancel: cancel, done: make(chan struct{}),
	}
	go s.run(ctx, route, tasks)
	return s, nil
}

// scan is a scan under way. Its goroutines end with Close at the latest.
type scan struct {
	c       *Cluster
	table   *Table
	query   Query
	filters []*tsdbpb.Filter

	batches chan *tsdbpb.RowBatch
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // of run, after batches is closed

	current *tsdbpb.RowBatch
	next    int
}

func (s *scan) run(ctx context.Context, route *client.TableRoute, tasks []client.ReadTask) {
	defer close(s.done)
	defer close(s.batches)
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(s.c.cfg.ScanConcurrency)
	for _, task := range tasks {
		if reading.Err() != nil {
			break
		}
		g.Go(func() error { return s.region(reading, route, task) })
	}
	s.err = g.Wait()
	if s.err == nil {
		s.err = context.Cause(ctx) // regions that were not read any more: what was is not the answer
	}
}

// Next implements RowIter.
func (s *scan) Next() ([]any, error) {
	for s.current == nil || s.next >= int(s.current.GetRowCount()) {
		b, ok := <-s.batches
		if !ok {
			if s.err != nil {
				return nil, s.err
			}
			return nil, io.EOF
		}
		s.current, s.next = b, 0
	}
	row := make([]any, len(s.query.Columns))
	for j, c := range s.current.GetColumns() {
		row[j] = stored(c.GetType(), batch.Value(c, s.next))
	}
	s.next++
	return row, nil
}

// Close implements RowIter.
func (s *scan) Close() {
	s.cancel()
	<-s.done
}

// region reads one region from its leader, which has a lease. A follower may have left the in-sync set since the route was
// read: it is asked only by a route that was read after the scan began. Where metasrv can't tell such a one, what is known
// must do.
func (s *scan) region(ctx context.Context, route *client.TableRoute, task client.ReadTask) error {
	begin, cancel := context.WithTimeout(ctx, s.c.cfg.Timeout)
	defer cancel()
	again, failed := true, error(client.ErrRegionUnavailable.With("region %s has no leader", task.Region.ID))
	if task.Region.HasLeader() {
		received, err := s.replica(ctx, route, task.Region, task.Region.Leader)
		if again, failed = !received, err; failed == nil {
			return nil
		}
	}
	for attempt := 1; ; attempt++ {
		if failed == nil || !again || ctx.Err() != nil {
			return failed
		}
		if attempt > 1 && s.c.pauseUnlessChanged(begin, attempt-1, route) != nil {
			return failed
		}
		newRoute, routeErr := s.freshRoute(begin)
		switch {
		case routeErr == nil:
			route = newRoute
		case !isTransient(routeErr):
			return errors.Join(routeErr, failed)
		}
		r := regionOf(route, task.Region.ID)
		if r == nil {
			return failed
		}
		task = client.ReadTask{Region: r}
		if r.HasLeader() {
			task.Endpoints = append(task.Endpoints, r.Leader)
		}
		task.Endpoints = append(task.Endpoints, r.Followers...)
		again, failed = s.anyReplica(ctx, route, task)
	}
}

// freshRoute returns the route as metasrv has it now.
func (s *scan) freshRoute(ctx context.Context) (*client.TableRoute, error) {
	patience := s.c.cfg.RoutePatience
	if time.Now().UnixNano() < s.c.silentUntil.Load() {
		patience = shortPatience
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.c.routes.Invalidate(s.table.Name, 0)
	route, err := s.c.route(asking, s.table)
	switch {
	case err == nil:
		s.c.silentUntil.Store(0)
	case asking.Err() != nil && ctx.Err() == nil && patience > shortPatience:
		s.c.silentUntil.Store(time.Now().Add(silence).UnixNano())
	}
	return route, err
}

const (
	// silence is how long metasrv is not waited for again, for long, once it has not answered.
	silence       = 5 * time.Second
	shortPatience = 100 * time.Millisecond
)

func regionOf(r *client.TableRoute, id metasrv.RegionID) *client.Region {
	for i := range r.Regions {
		if r.Regions[i].ID == id {
			return &r.Regions[i]
		}
	}
	return nil
}

// anyReplica reads the first replica that answers. again says that another attempt may help: no replica sent rows,
// and one was asked by an old route, or couldn't answer just now.
func (s *scan) anyReplica(
	ctx context.Context, route *client.TableRoute, task client.ReadTask,
) (again bool, err error) {
	var errs []error
	for _, e := range task.Endpoints {
		received, err := s.replica(ctx, route, task.Region, e)
		if err == nil || received || ctx.Err() != nil {
			return false, err
		}
		_, refused := routing.FromError(err)
		again = again || refused || isTransient(err)
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return true, client.ErrRegionUnavailable.With("region %s has no replica", task.Region.ID)
	}
	return again, errors.Join(errs...)
}

// errNoAnswer: a datanode took a query, or its connection, and said nothing.
var errNoAnswer = status.Error(codes.Unavailable, "no answer in time")

// replica streams one replica's rows. received says that some were handed on.
func (s *scan) replica(
	ctx context.Context, route *client.TableRoute, r *client.Region, e client.Endpoint,
) (received bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read of region %s on node %s at %s: %w", r.ID, e.NodeID, e.Addr, err)
		}
	}()
	node, err := s.c.nodes.get(e.Addr)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	request := &tsdbpb.QueryRequest{Route: routeProto(route, r, e), Filters: s.filters}
	for _, c := range s.query.Columns {
		request.Columns = append(request.Columns, c.GetName())
	}
	limit := time.AfterFunc(s.c.cfg.AnswerTimeout, func() { cancel(errNoAnswer) })
	stream, err := node.Query(ctx, request)
	if err == nil {
		_, err = stream.Header()
	}
	if !limit.Stop() {
		return false, errNoAnswer
	}
	if err != nil {
		return false, err
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return received, nil
		}
		if err == nil {
			err = s.check(resp.GetRows())
		}
		if err != nil {
			return received, err
		}
		select {
		case s.batches <- resp.GetRows():
			received = received || resp.GetRows().GetRowCount() > 0
		case <-ctx.Done():
			return received, context.Cause(ctx)
		}
	}
}

// check returns an error unless a batch has the columns that were asked for.
func (s *scan) check(b *tsdbpb.RowBatch) error {
	if b.GetRowCount() == 0 {
		return nil
	}
	if err := batch.CheckShape(b); err != nil {
		return err
	}
	if got, want := len(b.GetColumns()), len(s.query.Columns); got != want {
		return fmt.Errorf("the answer has %d columns, %d were asked for", got, want)
	}
	for i, c := range s.query.Columns {
		if got := b.GetColumns()[i]; got.GetName() != c.GetName() || got.GetType() != c.GetType() {
			return fmt.Errorf("the answer has column %s %s in place of %s %s",
				got.GetName(), got.GetType(), c.GetName(), c.GetType())
		}
	}
	return nil
}

var partitionOps = map[tsdbpb.Comparison]partition.Op{
	tsdbpb.Comparison_COMPARISON_EQ:          partition.OpEqual,
	tsdbpb.Comparison_COMPARISON_LT:          partition.OpLess,
	tsdbpb.Comparison_COMPARISON_LE:          partition.OpLessOrEqual,
	tsdbpb.Comparison_COMPARISON_GT:          partition.OpGreater,
	tsdbpb.Comparison_COMPARISON_GE:          partition.OpGreaterOrEqual,
	tsdbpb.Comparison_COMPARISON_IN:          partition.OpIn,
	tsdbpb.Comparison_COMPARISON_IS_NULL:     partition.OpIsNull,
	tsdbpb.Comparison_COMPARISON_IS_NOT_NULL: partition.OpIsNotNull,
}

func partitionConditions(conditions []Condition) []partition.Condition {
	out := make([]partition.Condition, len(conditions))
	for i, c := range conditions {
		out[i] = partition.Condition{Column: c.Column, Op: partitionOps[c.Comparison]}
		for _, v := range c.Values {
			out[i].Values = append(out[i].Values, column.Partition(v))
		}
	}
	return out
}

func filters(conditions []Condition) []*tsdbpb.Filter {
	out := make([]*tsdbpb.Filter, len(conditions))
	for i, c := range conditions {
		values := make([]*metasrvpb.Value, len(c.Values))
		for k, v := range c.Values {
			values[k] = column.Partition(v).Proto()
		}
		out[i] = &tsdbpb.Filter{Column: c.Column, Comparison: c.Comparison, Values: values}
	}
	return out
}
