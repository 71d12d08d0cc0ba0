package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) quarantineCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show", Args: noArgs(), Short: "Show what datanodes have that a restored state doesn't know",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.connected(cmd.Context(), a.showQuarantine) },
	}
	end := &cobra.Command{
		Use: "end CLUSTER-ID", Args: args(cobra.ExactArgs(1), "the id of the cluster, as quarantine show prints it"),
		Short: "Confirm a restored state: what it doesn't know is dropped from then on",
		Long: `Confirms the state of a cluster that was restored or recovered. From then on datanodes are told to drop the replicas
that it doesn't know. There is no way back: look at "metactl quarantine show" first.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || id == 0 {
				return usagef("%q is not the id of a cluster, which is a number", args[0])
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Maintenance().EndQuarantine(ctx, &metasrvpb.EndQuarantineRequest{ClusterId: id})
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) {
					fmt.Fprintf(w, "the state of cluster %d is confirmed: replicas that it doesn't know are dropped from now on\n", id)
				})
			})
		},
	}
	return group("quarantine", "A restored or recovered state, before somebody confirms it", show, end)
}

func (a *app) showQuarantine(ctx context.Context, c *client.Client) error {
	resp, err := c.Maintenance().Quarantine(ctx, &metasrvpb.QuarantineRequest{})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		if !resp.Quarantined {
			fmt.Fprintf(w, "cluster %d is in no quarantine\n", resp.Header.GetClusterId())
			return
		}
		fmt.Fprintf(w, "cluster %d is in quarantine: it was %s on %s, and nobody has confirmed it yet.\nNo replica is dropped meanwhile.\n",
			resp.Header.GetClusterId(), resp.Origin, date(resp.SinceMs))
		if len(resp.SilentNodes) > 0 {
			fmt.Fprintf(w, "\nNot heard yet: datanodes %v. What they have is not in this list.\n", resp.SilentNodes)
		}
		fmt.Fprintf(w, "\nTo be dropped when it is confirmed: %s\n", plural(uint64(len(resp.Unknown)), "replica"))
		if len(resp.Unknown) > 0 {
			g := newGrid(w, "NODE", "REGION", "REPLICA", "WHY")
			for _, u := range resp.Unknown {
				g.row(number(u.NodeId), metasrv.RegionID(u.RegionId).String(), number(u.ReplicaId), u.Reason)
			}
			g.end()
		}
		fmt.Fprintf(w, "\nConfirm it with: metactl quarantine end %d\n", resp.Header.GetClusterId())
	})
}
