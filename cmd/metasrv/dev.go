package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/cmd/internal/cli"
	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/server"
)

// devTiming lets a member that has nobody to wait for lead at once.
var devTiming = raftfsm.Timing{Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, LeaderLease: 50 * time.Millisecond}

func newDevCommand() *cobra.Command {
	cfg := server.Default()
	cfg.NodeID = "dev"
	cfg.RaftAddr = "127.0.0.1:0"
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster of one member on this machine, to try things out",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), server.EnvName, os.Getenv); err != nil {
				return err
			}
			logger, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			cfg.Version, cfg.Logger = cli.Version(), logger
			return runDev(cmd, cfg)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&cfg.DataDir, "data-dir", "", "`FOLDER` folder to keep the data in (default a temporary one, removed at the end)")
	flags.StringVar(&cfg.GRPCAddr, "grpc-addr", cfg.GRPCAddr, "`HOST:PORT` address to serve clients on")
	flags.StringVar(&cfg.HTTPAddr, "http-addr", cfg.HTTPAddr, "`HOST:PORT` address of /livez, /readyz and /metrics")
	registerIntervals(flags, &cfg)
	registerDisk(flags, &cfg)
	logs.register(flags, "warn")
	return cmd
}

func runDev(cmd *cobra.Command, cfg server.Config) (err error) {
	started := time.Now()
	kept := "kept when this ends"
	if cfg.DataDir == "" {
		kept = "temporary, removed when this ends; keep it with --data-dir"
		if cfg.DataDir, err = os.MkdirTemp("", "metasrv-dev-"); err != nil {
			return fmt.Errorf("create a temporary data folder: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(cfg.DataDir)) }()
	}
	timing := raftfsm.DefaultTiming()
	timing.Heartbeat, timing.Election, timing.LeaderLease = devTiming.Heartbeat, devTiming.Election, devTiming.LeaderLease
	cfg.Timing = timing
	s, err := server.Start(cfg)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	printDev(out, s, cfg.DataDir, kept)
	if s.WaitReady(cmd.Context()) == nil {
		_, _ = fmt.Fprintf(out, "\nReady after %d ms.\n", time.Since(started).Milliseconds())
	}
	return s.Wait(cmd.Context())
}

func printDev(out io.Writer, s *server.Server, dataDir, kept string) {
	_, _ = fmt.Fprintf(out, `metasrv dev: a cluster of one member, for development.

  data   %s (%s)
  gRPC   %s
  HTTP   http://%s (/livez, /readyz, /metrics)

Try in another terminal:

  curl http://%s/readyz
  metactl status --endpoints %s

Stop with Ctrl-C.
`, dataDir, kept, s.GRPCAddr(), s.HTTPAddr(), s.HTTPAddr(), s.GRPCAddr())
}
