package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/metasrv/metasrv/cmd/internal/cli"
	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/server"
)

func newServerCommand() *cobra.Command {
	cfg := server.Default()
	var logs logFlags
	var initialCluster, initialState, logStore string
	var logEntries uint64
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a member of a cluster",
		Example: `  # Three members on one machine; run one line in each of three terminals.
  C=m1=127.0.0.1:3003,m2=127.0.0.1:3103,m3=127.0.0.1:3203
  metasrv server --node-id m1 --data-dir /tmp/m1 --initial-cluster-state new --initial-cluster $C
  metasrv server --node-id m2 --data-dir /tmp/m2 --initial-cluster-state new --initial-cluster $C --grpc-addr 127.0.0.1:3102 --raft-addr 127.0.0.1:3103 --http-addr 127.0.0.1:3104
  metasrv server --node-id m3 --data-dir /tmp/m3 --initial-cluster-state new --initial-cluster $C --grpc-addr 127.0.0.1:3202 --raft-addr 127.0.0.1:3203 --http-addr 127.0.0.1:3204`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), server.EnvName, os.Getenv); err != nil {
				return err
			}
			logger, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if cfg.InitialCluster, err = server.ParseInitialCluster(initialCluster); err != nil {
				return err
			}
			cfg.InitialClusterState = raftfsm.ClusterState(initialState)
			if logEntries < raftfsm.MinLogEntries {
				return &server.ConfigError{Flag: "log-entries", Message: fmt.Sprintf(
					"is %d; it must be at least %d, for that many may be under way to other members", logEntries, raftfsm.MinLogEntries)}
			}
			cfg.LogStore, cfg.Log = raftfsm.LogStore(logStore), raftfsm.RetainEntries(logEntries)
			cfg.Version, cfg.Logger = cli.Version(), logger
			s, err := server.Start(cfg)
			if err != nil {
				return err
			}
			logger.Info("member serves", "member", cfg.NodeID, "version", cfg.Version, "data_dir", cfg.DataDir,
				"grpc_addr", s.GRPCAddr(), "raft_addr", s.RaftAddr(), "http_addr", s.HTTPAddr())
			ctx, stop := context.WithCancel(cmd.Context())
			var pacing sync.WaitGroup
			pacing.Go(func() { paceCollection(ctx) })
			defer pacing.Wait()
			defer stop()
			return s.Wait(ctx)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	registerMember(flags, &cfg)
	flags.StringVar(&initialCluster, "initial-cluster", "",
		"`ID=RAFT-ADDR,…` members that form a new cluster (default this one alone)")
	flags.StringVar(&initialState, "initial-cluster-state", "",
		"`STATE` what a member without data does: new founds the cluster, existing waits to be added to one "+
			"(required then; a member with data goes on in any case)")
	flags.StringVar(&logStore, "log-store", string(cfg.LogStore),
		"`STORE` how the log is kept: boltdb, or wal, which is faster and younger; a data folder keeps what it began with")
	flags.Uint64Var(&logEntries, "log-entries", cfg.Log.Trailing,
		"`N` entries of the log that are kept for members that lag, fewer where they have 1 GiB; who lags by more is sent the whole state")
	registerIntervals(flags, &cfg)
	registerDisk(flags, &cfg)
	flags.DurationVar(&cfg.Timing.DiskTimeout, "disk-timeout", cfg.Timing.DiskTimeout,
		"`DURATION` time after which a call to the disk that doesn't return ends this member, so that the others go on without it; 0 for never")
	logs.register(flags, "info")
	return cmd
}

// registerMember adds the flags that say who the member is and where it is reached.
func registerMember(flags *pflag.FlagSet, cfg *server.Config) {
	flags.StringVar(&cfg.NodeID, "node-id", "", "`NAME` name of this member in the cluster, for ever (required)")
	flags.StringVar(&cfg.DataDir, "data-dir", "", "`FOLDER` folder of this member's log and image (required)")
	flags.StringVar(&cfg.GRPCAddr, "grpc-addr", cfg.GRPCAddr, "`HOST:PORT` address to serve clients on")
	flags.StringVar(&cfg.RaftAddr, "raft-addr", cfg.RaftAddr, "`HOST:PORT` address to serve other members on")
	flags.StringVar(&cfg.HTTPAddr, "http-addr", cfg.HTTPAddr, "`HOST:PORT` address of /livez, /readyz and /metrics")
	flags.StringVar(&cfg.PprofAddr, "pprof-addr", "", "`HOST:PORT` loopback address to serve Go's profiler on (default none)")
	flags.StringVar(&cfg.AdvertiseGRPCAddr, "advertise-grpc-addr", "", "`HOST:PORT` address that clients dial (default --grpc-addr)")
	flags.StringVar(&cfg.AdvertiseRaftAddr, "advertise-raft-addr", "", "`HOST:PORT` address that other members dial (default --raft-addr)")
	flags.BoolVar(&cfg.Insecure, "insecure", false, "allow to listen beyond this machine, without encryption")
}

// registerIntervals adds the flags that both commands have.
func registerIntervals(flags *pflag.FlagSet, cfg *server.Config) {
	flags.DurationVar(&cfg.HeartbeatInterval, "heartbeat-interval", cfg.HeartbeatInterval, "`DURATION` how often nodes are asked for a heartbeat")
	flags.DurationVar(&cfg.SuspectAfter, "suspect-after", cfg.SuspectAfter, "`DURATION` silence after which a node gets no new regions")
	flags.DurationVar(&cfg.RepairAfter, "repair-after", cfg.RepairAfter,
		"`DURATION` silence of a datanode after which its replicas are rebuilt elsewhere; 0: never. What a new cluster begins with; "+
			"later: metactl config set repair-after")
	flags.DurationVar(&cfg.DownAfter, "down-after", cfg.DownAfter, "`DURATION` silence after which a node counts as down")
	flags.DurationVar(&cfg.RegionLease, "region-lease", cfg.RegionLease,
		"`DURATION` how long a node may serve its regions after a heartbeat that was answered. What a new cluster begins with; "+
			"later: metactl config set lease")
	flags.DurationVar(&cfg.ShutdownTimeout, "shutdown-timeout", cfg.ShutdownTimeout, "`DURATION` how long an orderly stop waits for requests under way")
}
