package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/server"
)

// offlineFlags name a member that doesn't run.
func offlineFlags(cmd *cobra.Command, cfg *server.Config) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&cfg.NodeID, "node-id", "", "`NAME` name of the member (required)")
	flags.StringVar(&cfg.DataDir, "data-dir", "", "`FOLDER` its data folder (required)")
	flags.StringVar(&cfg.RaftAddr, "raft-addr", cfg.RaftAddr, "`HOST:PORT` address at which other members will reach it")
	flags.StringVar(&cfg.AdvertiseRaftAddr, "advertise-raft-addr", "", "`HOST:PORT` the same, where it listens on another one (default --raft-addr)")
}

func newRestoreCommand() *cobra.Command {
	cfg := server.Default()
	var logStore string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data folder from a snapshot, for the first member of a new cluster",
		Long: `Makes the data folder of a member from a snapshot that "metactl snapshot save" wrote. Start the member on it: it is a
cluster of one, to which others are added with "metactl member add". The members of the old cluster must not run any more;
should one come back that dials --raft-addr, it ends for ever. So that address can't be one of theirs while a majority of
them answers.

What was written after the snapshot is gone. So the cluster begins another life: its revision and all ids go on far beyond
what can have been given out, and it is in quarantine: datanodes keep what the state doesn't know until somebody confirms
it with "metactl quarantine end".`,
		Example: `  metasrv restore backup.snap --node-id m1 --data-dir /var/lib/metasrv --raft-addr 10.0.0.1:3003`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{fmt.Errorf("%q takes the path of a snapshot, not %d arguments", cmd.CommandPath(), len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fromEnvironment(cmd.Flags(), server.EnvName, os.Getenv); err != nil {
				return err
			}
			cfg.LogStore = raftfsm.LogStore(logStore)
			if cfg.LogStore != raftfsm.LogStoreBolt && cfg.LogStore != raftfsm.LogStoreWAL {
				return &usageError{fmt.Errorf("--log-store is %q; it can be %s or %s", logStore, raftfsm.LogStoreBolt, raftfsm.LogStoreWAL)}
			}
			found, err := server.Restore(&cfg, args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			_, _ = fmt.Fprintf(out, "restored revision %d of cluster %d (%d keys) into %s\n", found.Revision, found.ClusterID, found.Keys, cfg.DataDir)
			printNext(out, &cfg, found)
			return nil
		},
	}
	offlineFlags(cmd, &cfg)
	cmd.Flags().StringVar(&logStore, "log-store", string(raftfsm.LogStoreBolt), "`STORE` how the member keeps its log: boltdb or wal, as for metasrv server")
	return cmd
}

// printNext says what to do with a member that begins a new life of its cluster.
func printNext(out io.Writer, cfg *server.Config, found raftfsm.Found) {
	kind := ""
	if found.LogStore == raftfsm.LogStoreWAL {
		kind = " --log-store wal" // without, it would not start
	}
	_, _ = fmt.Fprintf(out, `
Next:
  1. start it        metasrv server --node-id %s --data-dir %s --raft-addr %s%s …
  2. add the others  metactl member add NEW-ID --raft-addr HOST:PORT, each with an empty folder
  3. look            metactl quarantine show
  4. confirm         metactl quarantine end %d
`, cfg.NodeID, cfg.DataDir, cfg.RaftAddr, kind, found.ClusterID)
}
