package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"

	"github.com/metasrv/metasrv/examples/tsdb/batch"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
)

const (
	// writeConcurrency is how many regions one write goes to at a time. One whose region leader or follower has failed waits
	// for seconds: all regions of a node shall do so beside each other.
	writeConcurrency = 512
	// chunkBytes and chunkRows bound one request to a datanode.
	chunkBytes = 2 << 20
	chunkRows  = 10_000
	// refetchEvery is how many failed attempts make a route suspect, where the datanode says nothing of it.
	refetchEvery = 3
)

// Write returns nil when the region leaders have acknowledged all rows. After an error some rows may be stored;
// writing them again replaces them where the table has a primary key.
func (c *Cluster) Write(ctx context.Context, inserts ...Insert) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	ws := make([]*write, len(inserts))
	whole := make([]client.Insert, len(inserts))
	for i, in := range inserts {
		ws[i] = newWrite(c, in)
		rows := make([]int, len(in.Rows))
		for k := range rows {
			rows[k] = k
		}
		whole[i] = ws[i].insert(rows)
	}
	groups, err := c.split(ctx, whole)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writeConcurrency)
	for i := range groups {
		g.Go(func() error { return ws[groups[i].Insert].region(ctx, &groups[i]) })
	}
	return g.Wait()
}

// split groups rows by region; while a region has no leader or metasrv can't be asked, it tries again.
func (c *Cluster) split(ctx context.Context, inserts []client.Insert) ([]client.WriteGroup, error) {
	for attempt := 1; ; attempt++ {
		groups, err := c.routes.SplitInsert(ctx, inserts)
		if err == nil || !isTransient(err) || ctx.Err() != nil {
			return groups, err
		}
		if pause(ctx, attempt) != nil {
			return nil, err
		}
	}
}

// write is the writing of one Insert.
type write struct {
	c  *Cluster
	in Insert
	// keys holds the values of the columns that may be partition columns, of each row.
	keys    [][]partition.Value
	columns []string
}

func newWrite(c *Cluster, in Insert) *write {
	w := &write{c: c, in: in, keys: make([][]partition.Value, len(in.Rows))}
	for _, col := range in.Table.Schema.GetColumns() {
		w.columns = append(w.columns, col.GetName())
	}
	for i, row := range in.Rows {
		w.keys[i] = make([]partition.Value, len(row))
		for j, v := range row {
			w.keys[i][j] = column.Partition(v)
		}
	}
	return w
}

func (w *write) insert(rows []int) client.Insert {
	keys := make([][]partition.Value, len(rows))
	for i, r := range rows {
		keys[i] = w.keys[r]
	}
	return client.Insert{Table: w.in.Table.Name, Columns: w.columns, Rows: keys}
}

// region writes the rows of one region, in their order: of two rows with the same primary key the later one stays.
func (w *write) region(ctx context.Context, g *client.WriteGroup) error {
	b := batch.New(w.in.Table.Schema.GetColumns())
	var chunk []int
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		part := *g
		part.Rows, chunk = chunk, nil
		return w.chunk(ctx, &part, b.Take(), newWriteID())
	}
	for _, i := range g.Rows {
		if err := b.Append(wireRow(w.in.Rows[i])); err != nil {
			return fmt.Errorf("table %s: %w", w.in.Table.Name, err)
		}
		chunk = append(chunk, i)
		if b.Bytes() >= chunkBytes || len(chunk) >= chunkRows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// newWriteID returns an id whose order is about that of time: what datanodes know of ids then grows at its end, not everywhere.
func newWriteID() []byte {
	id := uuid.Must(uuid.NewV7()) // fails only where there is no randomness
	return id[:]
}

// chunk writes rows of one region by one request, which it repeats under the same id while that may help. Where
// the route changed, the rows go where the new one says.
func (w *write) chunk(ctx context.Context, g *client.WriteGroup, rows *tsdbpb.RowBatch, id []byte) error {
	trouble := writeTrouble{began: time.Now(), table: w.in.Table.Name, region: g.Region.ID}
	for attempt := 1; ; attempt++ {
		if err := same(w.in.Table, g.Route); err != nil {
			return err
		}
		err := w.send(ctx, g, rows, id)
		if err == nil {
			return nil
		}
		invalid, refused := routing.FromError(err)
		err = trouble.add(ctx, g.Endpoint, err, refused)
		switch {
		case refused && isBehind(invalid, g): // it will hear of its leadership
		case refused && newer(invalid, g.Route) > 0:
			w.c.routes.Invalidate(w.in.Table.Name, newer(invalid, g.Route))
		case refused:
			w.c.suspect(w.in.Table.Name)
		case !isTransient(err):
			return fmt.Errorf("write to region %s of %s: %w", g.Region.ID, w.in.Table.Name, err)
		case attempt%refetchEvery == 0:
			w.c.suspect(w.in.Table.Name)
		}
		if w.c.pauseUnlessChanged(ctx, attempt, g.Route) != nil {
			return trouble.failed(nil)
		}
		groups, splitErr := w.c.split(ctx, []client.Insert{w.insert(g.Rows)})
		switch {
		case splitErr != nil && isOver(ctx):
			return trouble.failed(nil) // the route was not waited for: no word on metasrv
		case splitErr != nil:
			return trouble.failed(splitErr)
		case len(groups) != 1:
			return w.regions(ctx, g, groups)
		}
		again := groups[0]
		again.Rows = g.Rows
		if again.Region.LeaderEpoch != g.Region.LeaderEpoch {
			attempt = 0 // another region leader: the next pauses are short again
		}
		g = &again
	}
}

// isOver reports whether the time of a context has passed, also where its timer is late.
func isOver(ctx context.Context) bool {
	deadline, limited := ctx.Deadline()
	return ctx.Err() != nil || limited && !time.Now().Before(deadline)
}

// isBehind reports whether the replica that refused a write is the one that the route names, but knows only an older
// epoch: metasrv has elected it, and it has not heard of that yet.
func isBehind(invalid *routing.Invalid, g *client.WriteGroup) bool {
	return invalid.Replica == g.Endpoint.ReplicaID && invalid.LeaderEpoch < g.Region.LeaderEpoch
}

// newer returns the route version to ask for after a refusal: the one that the datanode named, unless the route
// that was refused has it.
func newer(invalid *routing.Invalid, r *client.TableRoute) uint64 {
	if invalid.RouteVersion > r.Version {
		return invalid.RouteVersion
	}
	return 0
}

// regions writes rows that were of one region before and are of several now. The indexes of the groups refer to
// the rows of that region.
func (w *write) regions(ctx context.Context, of *client.WriteGroup, groups []client.WriteGroup) error {
	for _, g := range groups {
		for k, i := range g.Rows {
			g.Rows[k] = of.Rows[i]
		}
		if err := w.region(ctx, &g); err != nil {
			return err
		}
	}
	return nil
}

func (w *write) send(ctx context.Context, g *client.WriteGroup, rows *tsdbpb.RowBatch, id []byte) error {
	node, err := w.c.nodes.get(g.Endpoint.Addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	ctx, done := w.c.untilMoved(ctx, g.Route, g.Region)
	defer done()
	_, err = node.Write(ctx, &tsdbpb.WriteRequest{
		Route: routeProto(g.Route, g.Region, g.Endpoint), WriteId: id, Rows: rows,
	})
	if err != nil && errors.Is(context.Cause(ctx), errMoved) {
		return errMoved
	}
	return err
}

// wireRow returns the values as package batch takes them.
func wireRow(row []any) []any {
	wire := make([]any, len(row))
	for i, v := range row {
		if ts, ok := v.(column.Timestamp); ok {
			v = int64(ts)
		}
		wire[i] = v
	}
	return wire
}

// stored returns the value of a batch as package column has it.
func stored(t metasrvpb.DataType, v any) any {
	if ns, ok := v.(int64); ok && t == metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
		return column.Timestamp(ns)
	}
	return v
}
