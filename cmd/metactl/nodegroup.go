package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) groupCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List groups with their writers",
		Long: `Lists the groups of nodes that replicate by their own means. One node of a group writes, under a lease; the others are
read-only. * marks those that have all that was acknowledged: only one of them takes over from the writer.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.connected(cmd.Context(), a.listGroups) },
	}
	loseWrites := false
	elect := &cobra.Command{
		Use: "elect GROUP NODE", Args: args(cobra.ExactArgs(2), "the name of a group and the id of a node"),
		Short: "Make another node the writer of a group",
		Long: `Makes another node the writer of a group. The present writer stops first, or its lease ends; if the other node can't take
over, it goes on. metasrv itself elects another writer when one has failed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return usagef("%q is not the id of a node, which is a number", args[1])
			}
			req := &metasrvpb.ElectGroupWriterRequest{Group: args[0], NodeId: id, LoseWrites: loseWrites}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.electWriter(ctx, c, req) })
		},
	}
	elect.Flags().BoolVar(&loseWrites, "lose-writes", false,
		"elect a node that is not in sync, where the writer has failed: acknowledged writes that it lacks are lost for ever")
	return group("group", "Groups of nodes that replicate by their own means", list, elect)
}

func (a *app) listGroups(ctx context.Context, c *client.Client) error {
	resp, err := c.Cluster().ListGroups(ctx, &metasrvpb.ListGroupsRequest{Header: a.header()})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		g := newGrid(w, "GROUP", "WRITER", "STATE", "EPOCH", "LEASE", "NODES")
		for _, info := range resp.Groups {
			s := info.GetStatus()
			writer, lease := none, none
			if s.GetWriter() != nil {
				writer = nodeText(s.GetWriter())
			}
			if info.GetLeaseLeftMs() > 0 {
				lease = span(millis(info.GetLeaseLeftMs()))
			}
			g.row(s.GetName(), writer, groupState(info), number(s.GetEpoch()), lease, groupNodes(s))
		}
		g.end()
		for _, info := range resp.Groups {
			if info.GetProblem() != "" {
				fmt.Fprintf(w, "\nGroup %s: %s.\n", info.GetStatus().GetName(), info.GetProblem())
			}
		}
	})
}

// groupState says in a word or two whether a group can be written.
func groupState(info *metasrvpb.GroupInfo) string {
	switch {
	case info.GetSuccessor() != nil:
		return fmt.Sprintf("handing over to %d", info.GetSuccessor().GetId())
	case info.GetProblem() != "":
		return "problem"
	case info.GetStatus().GetWriter() == nil:
		return "no writer yet"
	case !info.GetWriting():
		return "taking over"
	}
	return "writing"
}

func groupNodes(s *metasrvpb.GroupStatus) string {
	var nodes []string
	for _, m := range s.GetMembers() {
		text := number(m.GetPeer().GetId())
		if m.GetInSync() {
			text += "*"
		}
		nodes = append(nodes, text)
	}
	return strings.Join(nodes, ", ")
}

func (a *app) electWriter(ctx context.Context, c *client.Client, req *metasrvpb.ElectGroupWriterRequest) error {
	resp, err := c.Cluster().ElectGroupWriter(ctx, req)
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		if successor := resp.GetGroup().GetSuccessor(); successor != nil {
			fmt.Fprintf(w, "group %s is being handed over to node %d; see: metactl group list\n", req.Group, successor.GetId())
			return
		}
		fmt.Fprintf(w, "node %d is the writer of group %s under epoch %d\n", req.NodeId, req.Group, resp.GetGroup().GetStatus().GetEpoch())
	})
}
