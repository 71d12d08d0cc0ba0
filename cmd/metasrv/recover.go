package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/server"
)

func newRecoverCommand() *cobra.Command {
	cfg := server.Default()
	var confirmed string
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Make a cluster of one out of a member whose cluster has lost its majority for ever",
		Long: `Makes a cluster of one out of a member that doesn't run, in its own data folder. Only for a cluster that has lost the
majority of its members for ever: as long as a majority can be started again, start it instead, and nothing is lost.

Choose the surviving member that has the most (compare what this command prints on each, it changes nothing before it is
confirmed). What only the lost members had is gone, also where it was acknowledged; what this member has in its log is
taken, also where it never was. Members of before that come back are refused. The files as they were are kept.

It asks the other members first, and refuses where those that answer make a majority with this one.

The cluster begins another life, in quarantine, as after a restore: see "metasrv restore --help".`,
		Example: `  metasrv recover --node-id m1 --data-dir /var/lib/metasrv --raft-addr 10.0.0.1:3003`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), server.EnvName, os.Getenv); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			found, kept, err := server.Recover(&cfg, func(found raftfsm.Found) error {
				printFound(out, &cfg, found)
				return confirmRecovery(out, cmd.InOrStdin(), found, confirmed)
			})
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(out, "\nrecovered cluster %d as a cluster of member %s alone; its files of before are in %s\n", found.ClusterID, cfg.NodeID, kept)
			printNext(out, &cfg, found)
			return nil
		},
	}
	offlineFlags(cmd, &cfg)
	cmd.Flags().StringVar(&confirmed, "i-understand-that-writes-may-be-lost", "",
		"`CLUSTER-ID` confirm without being asked, by the id of the cluster")
	return cmd
}

func printFound(out io.Writer, cfg *server.Config, found raftfsm.Found) {
	last := "not known"
	if !found.LastAt.IsZero() {
		last = found.LastAt.UTC().Format(time.DateTime) + "Z, by the clock of the metasrv leader of then"
	}
	var lost []string
	for _, m := range found.Members {
		if m.Record.GetId() != cfg.NodeID {
			lost = append(lost, m.Record.GetId()+" at "+m.Record.GetRaftAddr())
		}
	}
	_, _ = fmt.Fprintf(out, `Member %s in %s has
  cluster     %d (it was recovered or restored %d times)
  state       revision %d, %d keys, raft index %d of term %d
  last entry  %s
  of the log  %d entries behind the image; some of them may never have been acknowledged
The other members, which are given up for ever: %s

WRITES MAY BE LOST: whatever was acknowledged by the other members alone is gone.
If a majority of the members can be started again, do that instead.
`, cfg.NodeID, cfg.DataDir, found.ClusterID, found.Generation, found.Revision, found.Keys, found.Index, found.Term, last, found.Replayed,
		strings.Join(lost, ", "))
}

// confirmRecovery returns nil if a person gave the id of the cluster.
func confirmRecovery(out io.Writer, in io.Reader, found raftfsm.Found, given string) error {
	id := strconv.FormatUint(found.ClusterID, 10)
	if given == "" {
		_, _ = fmt.Fprintf(out, "\nType the id of the cluster, %s, to go on: ", id)
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			_, _ = fmt.Fprintln(out) // nobody has ended the line
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the confirmation: %w", err)
		}
		given = strings.TrimSpace(line)
	}
	switch given {
	case id:
		return nil
	case "":
		return errors.New("it was not confirmed, nothing was changed")
	}
	return fmt.Errorf("%q is not the id of the cluster, %s; nothing was changed", given, id)
}
