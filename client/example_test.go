package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func Example() {
	c, err := client.New(client.Config{
		Endpoints: []string{"127.0.0.1:3002"},
		Logger:    slog.Default(),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = c.Catalog().CreateSchema(ctx, &metasrvpb.CreateSchemaRequest{CatalogName: "factory", SchemaName: "sensors"})
	switch {
	case errors.Is(err, metasrv.ErrSchemaExists):
		fmt.Println("somebody was here before")
	case errors.Is(err, metasrv.ErrOutcomeUnknown):
		fmt.Println("look whether it is there:", err)
	case err != nil:
		fmt.Println(client.Reason(err), err)
	}
}

func ExampleHeartbeatTask() {
	run := func(ctx context.Context, c *client.Client) error {
		var task *client.HeartbeatTask
		task = client.NewHeartbeatTask(c, client.HeartbeatConfig{
			Peer:     &metasrvpb.Peer{Id: 1, Addr: "10.0.1.1:4001"},
			NodeInfo: &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, Labels: map[string]string{"zone": "a"}},
			Collect: func(context.Context) (client.HeartbeatReport, error) {
				return client.HeartbeatReport{
					NodeStat:    &metasrvpb.NodeStat{RegionNum: 1, CpuUsage: 0.1},
					RegionStats: []*metasrvpb.RegionStat{{RegionId: uint64(metasrv.NewRegionID(1024, 0)), ReplicaId: 1}},
				}, nil
			},
			OnInstruction: func(_ context.Context, instruction *metasrvpb.Instruction) error {
				fmt.Println("told to:", instruction)
				return nil
			},
			OnRegistered: func(incarnation uint64) {
				fmt.Println("registered as", incarnation, task.Incarnation())
			},
		})
		return task.Run(ctx)
	}
	_ = run
}
