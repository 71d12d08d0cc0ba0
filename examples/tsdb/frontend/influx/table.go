package influx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
)

// Types and names of the columns of tables that are made for new measurements.
const (
	timeColumn  = "ts"
	timeType    = "datetime(6)"
	tagType     = "varchar(255)"
	optionAuto  = "created_by"
	autoCreator = "line protocol"
)

// While another frontend creates the same table, its name is taken but it isn't public yet.
const (
	publicTimeout = 10 * time.Second
	publicPause   = 20 * time.Millisecond
)

// table returns the table of a measurement, which it creates for the points where there is none.
func (h *Handler) table(ctx context.Context, name metasrv.TableName, points []point) (*cluster.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, publicTimeout)
	defer cancel()
	for {
		t, err := h.store.Table(ctx, name)
		if !errors.Is(err, metasrv.ErrTableNotFound) {
			return t, err
		}
		n, err := h.newTable(name, points)
		if err != nil {
			return nil, err
		}
		switch err := h.store.CreateTable(ctx, n); {
		case err == nil:
			continue
		case !errors.Is(err, metasrv.ErrTableExists):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, metasrv.ErrNotReady.With("table %s is being created: try again", name)
		case <-time.After(publicPause):
		}
	}
}

// newTable returns a table with the columns ts, each tag, each field; its primary key is the tags and ts.
func (h *Handler) newTable(name metasrv.TableName, points []point) (*cluster.NewTable, error) {
	tags, fields := map[string]bool{}, map[string]*metasrvpb.Column{}
	folded := map[string]string{timeColumn: ""}
	for _, p := range points {
		for _, v := range p.values {
			if before, ok := folded[strings.ToLower(v.key)]; ok && before != v.key {
				return nil, lineErrorf(p.line, "%q can't be a column: %q is one", v.key, cmpOr(before, timeColumn))
			}
			folded[strings.ToLower(v.key)] = v.key
			if v.tag {
				tags[v.key] = true
				continue
			}
			c := fieldColumn(v)
			if before, ok := fields[v.key]; ok && before.GetType() != c.GetType() {
				return nil, lineErrorf(p.line, "field %q is %s here and %s in a line before", v.key,
					v.field.Kind(), before.GetNativeType())
			}
			fields[v.key] = c
		}
		for _, v := range p.values {
			if !v.tag && tags[v.key] || v.tag && fields[v.key] != nil {
				return nil, lineErrorf(p.line, "%q is a tag and a field", v.key)
			}
		}
	}
	return h.assemble(name, slices.Sorted(maps.Keys(tags)), fields), nil
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func (h *Handler) assemble(
	name metasrv.TableName, tags []string, fields map[string]*metasrvpb.Column,
) *cluster.NewTable {
	s := &metasrvpb.TableSchema{
		Columns: []*metasrvpb.Column{{
			Name: timeColumn, Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP, NativeType: timeType,
		}},
		PrimaryKey: append(slices.Clone(tags), timeColumn),
		TimeIndex:  timeColumn,
		Options:    map[string]string{optionAuto: autoCreator},
	}
	for _, t := range tags {
		s.Columns = append(s.Columns, &metasrvpb.Column{
			Name: t, Type: metasrvpb.DataType_DATA_TYPE_STRING, NativeType: tagType,
		})
	}
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		s.Columns = append(s.Columns, fields[f])
	}
	n := &cluster.NewTable{Name: name, Schema: s}
	if h.cfg.Partitions > 1 {
		columns := tags
		if len(columns) == 0 {
			columns = []string{timeColumn}
		}
		n.Rule = &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
			Hash: &metasrvpb.HashRule{Columns: columns, Partitions: h.cfg.Partitions},
		}}
	}
	return n
}

func fieldColumn(v value) *metasrvpb.Column {
	c := &metasrvpb.Column{Name: v.key, Nullable: true}
	switch v.field.Kind() {
	case lineprotocol.Bool:
		c.Type, c.NativeType = metasrvpb.DataType_DATA_TYPE_BOOL, "tinyint(1)"
	case lineprotocol.Int:
		c.Type, c.NativeType = metasrvpb.DataType_DATA_TYPE_INT64, "bigint"
	case lineprotocol.Uint:
		c.Type, c.NativeType = metasrvpb.DataType_DATA_TYPE_UINT64, "bigint unsigned"
	case lineprotocol.Float:
		c.Type, c.NativeType = metasrvpb.DataType_DATA_TYPE_FLOAT64, "double"
	default:
		c.Type, c.NativeType = metasrvpb.DataType_DATA_TYPE_STRING, "text"
	}
	return c
}

// timeIndex returns the place of the column that takes the time of points.
func timeIndex(t *cluster.Table) (int, error) {
	names := []string{t.Schema.GetTimeIndex(), timeColumn, "time"}
	for _, n := range names {
		if c, i := t.Column(n); i >= 0 && c.GetType() == metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
			return i, nil
		}
	}
	return 0, fmt.Errorf("table %s has no column for the time of points: create it with COMMENT 'time_index=…'",
		t.Name.Table)
}
