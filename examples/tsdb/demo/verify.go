package main

import (
	"context"
	"fmt"
	"math"
	"time"
)

// verify reads everything back through the MySQL protocol and compares it with what was acknowledged.
func (d *demo) verify(ctx context.Context, l *ledger) error {
	if err := d.compareRows(ctx, l); err != nil {
		return err
	}
	return d.compareAggregates(ctx, l)
}

func (d *demo) compareRows(ctx context.Context, l *ledger) error {
	begin := time.Now()
	rows, err := d.db.QueryContext(ctx, "SELECT metric, device, ts, value FROM metrics")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	read := make(map[rowKey]float64, len(l.acknowledged))
	for rows.Next() {
		var (
			k     rowKey
			ts    string
			value float64
		)
		if err := rows.Scan(&k.metric, &k.device, &ts, &value); err != nil {
			return err
		}
		at, err := time.Parse("2006-01-02 15:04:05.999999", ts)
		if err != nil {
			return err
		}
		k.micros = at.UnixMicro()
		if _, twice := read[k]; twice {
			return fmt.Errorf("row %+v is there twice", k)
		}
		read[k] = value
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for k, want := range l.acknowledged {
		got, ok := read[k]
		switch {
		case !ok:
			return fmt.Errorf("acknowledged row %+v is lost", k)
		case got != want:
			return fmt.Errorf("row %+v has the value %v, %v was acknowledged", k, got, want)
		}
	}
	if len(read) != len(l.acknowledged) {
		return fmt.Errorf("%d rows are there, %d were acknowledged", len(read), len(l.acknowledged))
	}
	d.out.Print("all %d acknowledged rows read back, each once, in %s", len(read), time.Since(begin).Round(time.Millisecond))
	return nil
}

// aggregate is what the frontend must compute over all regions.
type aggregate struct {
	count           int
	lowest, highest float64
	sum             float64
}

func (d *demo) compareAggregates(ctx context.Context, l *ledger) error {
	want := map[string]*aggregate{}
	for k, v := range l.acknowledged {
		a := want[k.metric]
		if a == nil {
			a = &aggregate{lowest: math.Inf(1), highest: math.Inf(-1)}
			want[k.metric] = a
		}
		a.count, a.sum = a.count+1, a.sum+v
		a.lowest, a.highest = min(a.lowest, v), max(a.highest, v)
	}
	rows, err := d.db.QueryContext(ctx,
		"SELECT metric, COUNT(*), MIN(value), MAX(value), AVG(value) FROM metrics GROUP BY metric ORDER BY metric")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	seen := 0
	for rows.Next() {
		var (
			metric                   string
			count                    int
			lowest, highest, average float64
		)
		if err := rows.Scan(&metric, &count, &lowest, &highest, &average); err != nil {
			return err
		}
		w := want[metric]
		if w == nil || count != w.count || lowest != w.lowest || highest != w.highest || !near(average, w.sum/float64(w.count)) {
			return fmt.Errorf("%s: count %d, min %v, max %v, avg %v; want %+v", metric, count, lowest, highest, average, w)
		}
		seen++
		d.out.Print("  %-24s %6d rows   min %-14.6g max %-14.6g avg %.6g", metric, count, lowest, highest, average)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if seen != len(want) {
		return fmt.Errorf("%d metrics are there, want %d", seen, len(want))
	}
	d.out.Print("the aggregates are those of the acknowledged rows")
	return nil
}

// near allows for sums that were made in another order.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b)) }
