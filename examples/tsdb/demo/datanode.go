package main

import (
	"context"
	"errors"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

// killDatanode kills the datanode that leads most regions, and shows that all rows can be read and written without it.
func (d *demo) killDatanode(ctx context.Context, w *writer) error {
	victim, led, err := d.busiest(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	victim.Process.Kill()
	victim.Process = nil
	d.out.Print("datanode %d killed (kill -9), which led %d regions, still writing", victim.ID, led)
	read := time.Now()
	var rows int
	if err := d.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM metrics").Scan(&rows); err != nil {
		return err
	}
	d.out.Print("%d rows were read without it, in %s", rows, time.Since(read).Round(time.Millisecond))
	acknowledged := w.acknowledged.Load()
	// The batch under way may have been sent before the kill; the one behind it was not.
	if err := d.cluster.Wait(ctx, "writes go on", func() bool { return w.acknowledged.Load() >= acknowledged+2 }); err != nil {
		return err
	}
	d.out.Print("all regions are written again %s after the kill, led by other nodes", time.Since(began).Round(time.Millisecond))
	if err := d.cluster.StartDatanode(victim); err != nil {
		return err
	}
	began = time.Now()
	if err := d.cluster.Wait(ctx, "the datanode has what it missed", func() bool { return local.InSync(ctx, d.client) }); err != nil {
		return err
	}
	d.out.Print("datanode %d restarted from its folder, and is in sync again after %s", victim.ID, time.Since(began).Round(time.Millisecond))
	return nil
}

// busiest returns the datanode that leads most regions, and how many.
func (d *demo) busiest(ctx context.Context) (*local.Datanode, uint32, error) {
	answer, err := d.client.Cluster().ListNodes(ctx, &metasrvpb.ListNodesRequest{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE})
	if err != nil {
		return nil, 0, err
	}
	var victim *local.Datanode
	var most uint32
	for i, n := range answer.GetNodes() {
		if n.GetRegionLeaders() > most {
			victim, most = d.cluster.Datanodes[i], n.GetRegionLeaders()
		}
	}
	if victim == nil {
		return nil, 0, errors.New("no datanode leads a region")
	}
	return victim, most, nil
}
