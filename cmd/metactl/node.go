package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) nodeCommand() *cobra.Command {
	role := ""
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List datanodes and frontends with their state and load",
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := parseRole(role)
			if err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.listNodes(ctx, c, want)
			})
		},
	}
	list.Flags().StringVar(&role, "role", "", "`ROLE` only nodes with this role: datanode or frontend")
	get := &cobra.Command{
		Use: "get ID", Args: args(cobra.ExactArgs(1), "the id of a node"),
		Short: "Show one node",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usagef("%q is not the id of a node, which is a number", args[0])
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.getNode(ctx, c, id)
			})
		},
	}
	cmd := group("node", "The datanodes and frontends that metasrv coordinates", list, get,
		a.nodeDrainCommand(), a.nodeUndrainCommand(), a.nodeRemoveCommand())
	cmd.Aliases = []string{"nodes", "datanode", "datanodes"}
	return cmd
}

func parseRole(s string) (metasrvpb.NodeRole, error) {
	switch s {
	case "":
		return metasrvpb.NodeRole_NODE_ROLE_UNSPECIFIED, nil
	case "datanode":
		return metasrvpb.NodeRole_NODE_ROLE_DATANODE, nil
	case "frontend":
		return metasrvpb.NodeRole_NODE_ROLE_FRONTEND, nil
	}
	return 0, usagef("--role is %q; it can be datanode or frontend", s)
}

func (a *app) listNodes(ctx context.Context, c *client.Client, role metasrvpb.NodeRole) error {
	resp, err := c.Cluster().ListNodes(ctx, &metasrvpb.ListNodesRequest{Header: a.header(), Role: role})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) { showNodes(w, resp.Nodes) })
}

// showNodes lists nodes, with their groups where there are any.
func showNodes(w io.Writer, nodes []*metasrvpb.Node) {
	grouped := slices.ContainsFunc(nodes, func(n *metasrvpb.Node) bool { return n.GetInfo().GetGroup() != "" })
	columns := []string{"NODE", "ADDRESS", "ROLE"}
	if grouped {
		columns = append(columns, "GROUP")
	}
	g := newGrid(w, append(columns, "STATE", "HEARTBEAT", "REPLICAS", "LEADERS", "CPU", "MEMORY", "DISK", "VERSION")...)
	for _, n := range nodes {
		row := []string{number(n.GetPeer().GetId()), n.GetPeer().GetAddr(), nodeRole(n)}
		if grouped {
			row = append(row, n.GetInfo().GetGroup())
		}
		g.row(append(row, nodeStates(n), lastBeat(n), number(n.Replicas), number(n.RegionLeaders),
			cpu(n.Stat), bytesOf(n.GetStat().GetMemoryUsedBytes()), bytesOf(n.GetStat().GetDiskUsedBytes()), n.GetInfo().GetVersion())...)
	}
	g.end()
}

func (a *app) getNode(ctx context.Context, c *client.Client, id uint64) error {
	resp, err := c.Cluster().GetNode(ctx, &metasrvpb.GetNodeRequest{Header: a.header(), NodeId: id})
	if err != nil {
		return err
	}
	n := resp.GetNode()
	return a.show(resp, func(w io.Writer) {
		g := newGrid(w)
		for _, row := range nodeRows(n) {
			g.row(row[0], row[1])
		}
		g.end()
	})
}

func nodeRole(n *metasrvpb.Node) string {
	role := n.GetInfo().GetRole()
	if role == metasrvpb.NodeRole_NODE_ROLE_UNSPECIFIED {
		role = metasrvpb.NodeRole_NODE_ROLE_DATANODE
	}
	s := label(role, "NODE_ROLE_")
	if n.GetLegacy() {
		s += " (early protocol)"
	}
	return s
}

func nodeState(s metasrvpb.NodeState) string { return label(s, "NODE_STATE_") }

// nodeStates returns what is known of a node from its heartbeats, and whether it gets replicas.
func nodeStates(n *metasrvpb.Node) string {
	s := nodeState(n.GetState())
	if n.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED {
		s += ", " + label(n.GetDrain(), "NODE_DRAIN_")
	}
	return s
}

func lastBeat(n *metasrvpb.Node) string {
	// A node whose beat is not yet known has no statistics either.
	if n.GetLastHeartbeatAgeMs() == 0 && n.GetStat() == nil {
		return none
	}
	return ago(millis(n.GetLastHeartbeatAgeMs()))
}

func cpu(s *metasrvpb.NodeStat) string {
	if s == nil {
		return none
	}
	return fmt.Sprintf("%.0f%%", s.CpuUsage*100)
}

// bytesOf returns a size; nodes that don't report it send 0.
func bytesOf(n uint64) string {
	if n == 0 {
		return none
	}
	return size(n)
}

// pairs returns a map as name=value in the order of names.
func pairs(m map[string]string) string {
	var s []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s = append(s, k+"="+m[k])
	}
	return strings.Join(s, ", ")
}
