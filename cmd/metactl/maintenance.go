package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) maintenanceCommand() *cobra.Command {
	on := &cobra.Command{
		Use: "on REASON", Args: args(cobra.ExactArgs(1), "the reason, in quotes"),
		Short: "Have metasrv move nothing by itself",
		Long: `Begins maintenance mode, for all members and until "metactl maintenance off": metasrv gives the regions of a datanode
that fails to no other one, and repairs nothing by itself. What operators ask for goes on. While it is on, regions of a datanode
that stops can't be written until that is back. Given again, it changes the reason.`,
		Example: `  metactl maintenance on "switch of rack 3 is replaced"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(args[0]) == "" {
				return usagef("the reason is empty; who looks at this at night must learn why nothing moves")
			}
			return a.configure(cmd.Context(), &metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_BeginMaintenance{
				BeginMaintenance: &metasrvpb.MaintenanceMode{Reason: args[0]},
			}}, "maintenance mode is on: metasrv moves nothing by itself until: metactl maintenance off")
		},
	}
	off := &cobra.Command{
		Use: "off", Args: noArgs(), Short: "Have metasrv act by itself again",
		Long: "Ends maintenance mode: regions of datanodes that have failed meanwhile are given to others at once.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.configure(cmd.Context(), &metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_EndMaintenance{
				EndMaintenance: &metasrvpb.EndMaintenance{},
			}}, "maintenance mode is off: metasrv acts by itself again")
		},
	}
	status := &cobra.Command{
		Use: "status", Args: noArgs(), Short: "Show whether metasrv acts by itself, and why not",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.connected(cmd.Context(), a.maintenanceStatus) },
	}
	return group("maintenance", "Maintenance mode: metasrv moves nothing by itself", on, off, status)
}

func (a *app) configure(ctx context.Context, req *metasrvpb.ConfigureRequest, done string) error {
	return a.connected(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Cluster().Configure(ctx, req)
		if err != nil {
			return err
		}
		return a.show(resp, func(w io.Writer) { fmt.Fprintln(w, done) })
	})
}

func (a *app) maintenanceStatus(ctx context.Context, c *client.Client) error {
	resp, err := c.Cluster().GetConfig(ctx, &metasrvpb.GetConfigRequest{Header: a.header()})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		m, failover := resp.GetConfig().GetMaintenance(), resp.GetFailover()
		if m != nil {
			fmt.Fprintf(w, "maintenance mode is on since %s: %s\n", date(m.SinceMs), m.Reason)
		} else {
			fmt.Fprintln(w, "maintenance mode is off")
		}
		switch {
		case failover == nil:
			fmt.Fprintln(w, "what has failed is known to the metasrv leader only, which didn't answer this")
			return
		case m == nil && failover.Paused != "":
			fmt.Fprintf(w, "no region is given to another datanode: %s\n", failover.Paused)
		case failover.Paused == "":
			fmt.Fprintln(w, "regions of datanodes that fail are given to others")
		}
		if len(failover.FailedNodeIds) > 0 {
			fmt.Fprintf(w, "failed datanodes that lead regions: %s\n", strings.Trim(fmt.Sprint(failover.FailedNodeIds), "[]"))
		}
		if n := failover.RegionsWithoutLeader; n > 0 {
			fmt.Fprintf(w, "%s without a leader; see: metactl region list --problem\n", plural(n, "region"))
		}
	})
}
