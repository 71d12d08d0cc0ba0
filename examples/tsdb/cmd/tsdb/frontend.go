package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/examples/tsdb/frontend"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
)

func newFrontendCommand() *cobra.Command {
	var c frontend.Config
	var insecure, debug bool
	cmd := &cobra.Command{
		Use:   "frontend",
		Short: "Answer MySQL clients and take line protocol",
		Long: `frontend speaks the MySQL protocol and takes InfluxDB line protocol at POST /write?db=public. It stores nothing
itself: metasrv says where the tables are, and datanodes hold their rows. Any user may log in, without a password.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, l := range []struct{ flag, addr string }{
				{"mysql-listen", c.MySQLListen}, {"http-listen", c.HTTPListen},
			} {
				if err := checkBind(l.flag, l.addr, insecure); err != nil {
					return err
				}
			}
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			c.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			if err := c.Validate(); err != nil {
				return &usageError{fmt.Errorf("--%w", err)}
			}
			return frontend.Run(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Uint64Var((*uint64)(&c.NodeID), "node-id", uint64(frontend.DefaultNodeID),
		"number of this frontend; a second one needs a number of its own, unique among frontends and datanodes")
	flags.StringVar(&c.MySQLListen, "mysql-listen", "127.0.0.1:4002", "address to serve MySQL clients on")
	flags.StringVar(&c.HTTPListen, "http-listen", "127.0.0.1:4000", "address to take line protocol on")
	flags.StringSliceVar(&c.Metasrv, "metasrv", []string{"127.0.0.1:3002"}, "gRPC addresses of metasrv members")
	flags.Uint32Var(&c.AutoPartitions, "auto-partitions", 1, "regions of tables that line protocol creates, by the hash of their tags")
	flags.DurationVar(&c.Timeout, "write-timeout", cluster.DefaultTimeout, "time after which a write that is not acknowledged fails")
	flags.BoolVar(&debug, "debug", false, "log failed statements too")
	flags.BoolVar(&insecure, "insecure", false, "serve other machines, without encryption and passwords")
	return cmd
}
