package client

import (
	"context"
	"fmt"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/router/partition"
)

// Insert is rows for one table. SplitInsert reads the values of the partition columns only, so a caller who
// keeps its rows in another form may give just those: the groups refer to rows by index.
type Insert struct {
	Table metasrv.TableName
	// Columns names the values of each row. It holds at least the partition columns, defaults filled in.
	Columns []string
	Rows    [][]partition.Value
}

// WriteGroup is the rows of one Insert that go to one region: what one request to a datanode carries.
type WriteGroup struct {
	// Insert is the index of the Insert in the batch.
	Insert int
	Route  *TableRoute
	Region *Region
	// Endpoint is the mutate endpoint of the region.
	Endpoint Endpoint
	// Rows are indexes into Rows of the Insert, rising.
	Rows []int
}

// leaderlessAge is how old a route may be to be believed that a region has no leader. No datanode answers
// InvalidRoute for such a region, so the route has to be read again until there is a leader.
const leaderlessAge = 200 * time.Millisecond

// SplitInsert splits a batch by the routes of its tables: one group for each region of each Insert, in the order
// of the Inserts and then of the partitions. A group that a datanode refuses with InvalidRoute is retried by
// Invalidate and SplitInsert of its rows.
//
// Nothing is returned on an error: a table that has no route, a value that is none of its column
// (metasrv.ErrInvalidArgument, naming column and row), ErrUnknownPartitions, or ErrRegionUnavailable naming a
// region that rows belong to and that has no leader even in a fresh route.
func (c *RouteCache) SplitInsert(ctx context.Context, batch []Insert) ([]WriteGroup, error) {
	names := make([]metasrv.TableName, len(batch))
	for i := range batch {
		names[i] = batch[i].Table
	}
	routes, err := c.GetAll(ctx, names...)
	if err != nil {
		return nil, err
	}
	var groups []WriteGroup
	for i := range batch {
		of, err := c.splitOne(ctx, i, &batch[i], routes[batch[i].Table])
		if err != nil {
			return nil, err
		}
		groups = append(groups, of...)
	}
	return groups, nil
}

func (c *RouteCache) splitOne(ctx context.Context, i int, insert *Insert, r *TableRoute) ([]WriteGroup, error) {
	groups, err := splitByRoute(i, insert, r)
	if err != nil {
		return nil, err
	}
	if leaderless(groups) != nil && time.Since(r.read) > leaderlessAge {
		c.invalidateRoute(r)
		if r, err = c.Get(ctx, insert.Table); err != nil {
			return nil, err
		}
		if groups, err = splitByRoute(i, insert, r); err != nil {
			return nil, err
		}
	}
	if region := leaderless(groups); region != nil {
		return nil, ErrRegionUnavailable.With("region %s of table %s has no leader", region.ID, insert.Table)
	}
	return groups, nil
}

func splitByRoute(i int, insert *Insert, r *TableRoute) ([]WriteGroup, error) {
	p, err := r.Partitioner()
	if err != nil {
		return nil, err
	}
	parts, err := p.Split(insert.Columns, insert.Rows)
	if err != nil {
		return nil, fmt.Errorf("insert into table %s: %w", insert.Table, err)
	}
	groups := make([]WriteGroup, len(parts))
	for k, part := range parts {
		region := &r.Regions[part.Partition]
		groups[k] = WriteGroup{Insert: i, Route: r, Region: region, Endpoint: region.Leader, Rows: part.Rows}
	}
	return groups, nil
}

// leaderless returns a region that can't be written to, nil where there is none.
func leaderless(groups []WriteGroup) *Region {
	for i := range groups {
		if !groups[i].Region.HasLeader() {
			return groups[i].Region
		}
	}
	return nil
}
