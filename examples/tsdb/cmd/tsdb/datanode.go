package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/examples/tsdb/datanode"
)

func newDatanodeCommand() *cobra.Command {
	var c datanode.Config
	var insecure bool
	cmd := &cobra.Command{
		Use:   "datanode --node-id N --data-dir FOLDER",
		Short: "Store replicas of regions",
		Long: `datanode stores replicas of regions, each in a SQLite file of its data folder, and serves frontends and other
datanodes. It registers with metasrv and does what metasrv instructs.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.NodeID == 0 {
				return &usageError{errors.New("--node-id is required: a number of its own for each datanode, for example 1")}
			}
			if err := checkBind("listen", c.Listen, insecure); err != nil {
				return err
			}
			c.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if err := c.Validate(); err != nil {
				return &usageError{fmt.Errorf("--%w", err)}
			}
			return datanode.Run(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Uint64Var((*uint64)(&c.NodeID), "node-id", 0, "number of this datanode, unique in the cluster")
	flags.StringVar(&c.DataDir, "data-dir", "", "folder of this datanode, made if it doesn't exist")
	flags.StringVar(&c.Listen, "listen", "127.0.0.1:4001", "address to serve gRPC on")
	flags.StringVar(&c.Advertise, "advertise", "", "address that frontends and other datanodes dial (default that of --listen)")
	flags.StringSliceVar(&c.Metasrv, "metasrv", []string{"127.0.0.1:3002"}, "gRPC addresses of metasrv members")
	flags.StringVar(&c.Zone, "zone", "", "failure domain that this datanode stands in")
	flags.IntVar(&c.OpenReplicas, "open-replicas", 0, `replicas whose files stay open while nobody uses them; opening one again costs several times
a write (default an eighth of the open files that the process is allowed, 1024 at most)`)
	flags.StringVar(&c.Journal, "journal", "", `file to append to what is acknowledged and stored, for checks of a cluster: lines
"ack region replica leader_epoch seq time write_id" and "store region replica leader_epoch seq time"`)
	flags.BoolVar(&insecure, "insecure", false, "serve other machines, without encryption")
	return cmd
}
