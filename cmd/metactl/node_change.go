package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func parseNode(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, usagef("%q is not the id of a node, which is a number", s)
	}
	return id, nil
}

// onNode returns a command that starts a procedure on one node.
func (a *app) onNode(use, short, long string, set func(node uint64, req *metasrvpb.StartProcedureRequest)) *cobra.Command {
	cmd := &cobra.Command{Use: use + " ID", Args: args(cobra.ExactArgs(1), "the id of a node"), Short: short, Long: long}
	return a.startCommand(cmd, func(args []string) (*metasrvpb.StartProcedureRequest, error) {
		id, err := parseNode(args[0])
		if err != nil {
			return nil, err
		}
		req := &metasrvpb.StartProcedureRequest{}
		set(id, req)
		return req, nil
	})
}

func (a *app) nodeDrainCommand() *cobra.Command {
	return a.onNode("drain", "Move everything away from a node",
		`Moves everything away from a node, so that it can be stopped: it gets no new replicas, its region leaders are handed to other
in-sync replicas, and each of its replicas is moved to another node. Clients go on reading and writing.

When it has ended, the node has nothing and stays drained: metactl node remove forgets it, metactl node undrain gives it replicas again.`,
		func(node uint64, req *metasrvpb.StartProcedureRequest) {
			req.Procedure = &metasrvpb.StartProcedureRequest_DrainNode{DrainNode: &metasrvpb.DrainNode{NodeId: node}}
		})
}

func (a *app) nodeUndrainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "undrain ID", Args: args(cobra.ExactArgs(1), "the id of a node"),
		Short: "Let a node have replicas again",
		Long:  "Lets a node have replicas again. If it is being drained, that ends; what was moved away stays where it is.",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Cluster().UndrainNode(ctx, &metasrvpb.UndrainNodeRequest{NodeId: id})
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { fmt.Fprintf(w, "node %d gets replicas again\n", id) })
			})
		},
	}
}

func (a *app) nodeRemoveCommand() *cobra.Command {
	r := &metasrvpb.RemoveNode{}
	cmd := a.onNode("remove", "Forget a node that is drained or dead",
		`Forgets a node for ever: its id is never given again. The node must be drained.

A node that died without that is removed with --force, when it is down: its replicas leave their regions, and are rebuilt on other
nodes from those that are left. That is refused where the node has the last in-sync replica of a region: bring its disk back under the
same id, or give --accept-data-loss, and drop or restore the tables that are named.`,
		func(node uint64, req *metasrvpb.StartProcedureRequest) {
			r.NodeId = node
			req.Procedure = &metasrvpb.StartProcedureRequest_RemoveNode{RemoveNode: r}
		})
	cmd.Flags().BoolVar(&r.Force, "force", false, "the node is down and not drained")
	cmd.Flags().BoolVar(&r.AcceptDataLoss, "accept-data-loss", false, "also where it has the last in-sync replica of a region (with --force)")
	return cmd
}

func (a *app) tableSetReplicasCommand() *cobra.Command {
	set := &metasrvpb.SetTableReplicas{}
	cmd := &cobra.Command{
		Use: "set-replicas NAME N", Args: args(cobra.ExactArgs(2), "the name of a table, and how many replicas its regions should have"),
		ValidArgsFunction: a.completeTables,
		Short:             "Change how many replicas the regions of a table have",
		Long: `Changes how many replicas each region of a table has, the leader included: replicas are added on other nodes and brought in sync,
or removed, never the leader.`,
	}
	return a.startCommand(cmd, func(args []string) (*metasrvpb.StartProcedureRequest, error) {
		name, err := parseTableName(args[0])
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(args[1], 10, 8)
		if err != nil || n == 0 {
			return nil, usagef("%q is not a number of replicas", args[1])
		}
		set.TableName, set.Replicas = toProto(name), uint32(n)
		return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_SetTableReplicas{SetTableReplicas: set}}, nil
	})
}
