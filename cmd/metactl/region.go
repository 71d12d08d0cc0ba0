package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// regionTerms explains the columns of regions that don't explain themselves.
const regionTerms = `LEADER EPOCH counts the region's leaders; replicas refuse writes of a leader with a lower one.
CONF VERSION rises with every change of the region's replicas or of which of them are in sync.`

func (a *app) regionCommand() *cobra.Command {
	req := &metasrvpb.ListRegionsRequest{}
	list := &cobra.Command{
		Use: "list [TABLE]", Aliases: []string{"ls"},
		Args:              args(cobra.MaximumNArgs(1), "at most the name of a table"),
		ValidArgsFunction: a.completeTables,
		Short:             "List regions with their replicas, of one table or of all",
		Long:              "Lists regions with their replicas, of one table or of all.\n\n" + regionTerms,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				name, err := parseTableName(args[0])
				if err != nil {
					return err
				}
				req.TableName = toProto(name)
			}
			req.Header = a.header()
			ofNode := cmd.Flags().Changed("node")
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				if ofNode {
					// A mistyped id must not look like a node without regions.
					_, err := c.Cluster().GetNode(ctx, &metasrvpb.GetNodeRequest{Header: a.header(), NodeId: req.NodeId})
					if err != nil {
						return err
					}
				}
				return a.listRegions(ctx, c, req)
			})
		},
	}
	list.Flags().Uint64Var(&req.NodeId, "node", 0, "`ID` only regions with a replica on this node")
	list.Flags().BoolVar(&req.OnlyProblems, "problem", false, "only regions with which something is wrong, and what that is")
	cmd := group("region", "Regions, the parts of tables", list, a.regionGetCommand(), a.regionMigrateCommand(), a.regionTransferCommand(),
		a.regionAddReplicaCommand(), a.regionRemoveReplicaCommand())
	cmd.Aliases = []string{"regions"}
	return cmd
}

func (a *app) listRegions(ctx context.Context, c *client.Client, req *metasrvpb.ListRegionsRequest) error {
	resp, err := c.ListRegions(ctx, req)
	if err != nil {
		return err
	}
	if req.OnlyProblems {
		return a.show(resp, func(w io.Writer) { showProblems(w, resp.Regions) })
	}
	return a.show(resp, func(w io.Writer) {
		g := newGrid(w, "REGION", "TABLE", "STATE", "LEADER", "FOLLOWERS", "LEADER EPOCH", "CONF VERSION", "ROWS", "SIZE")
		for _, r := range resp.Regions {
			leader, followers := replicas(r)
			stat := leader.GetStat()
			rows, bytes := none, none
			if stat != nil {
				rows, bytes = number(stat.ApproximateRows), size(stat.ApproximateSize)
			}
			g.row(metasrv.RegionID(r.RegionId).String(), tableName(r.GetTableName()), regionState(r),
				replicaText(leader), followers, number(r.LeaderEpoch), number(r.ConfVersion), rows, bytes)
		}
		g.end()
	})
}

func showProblems(w io.Writer, regions []*metasrvpb.RegionInfo) {
	if len(regions) == 0 {
		fmt.Fprintln(w, "nothing is wrong with any region")
		return
	}
	g := newGrid(w, "REGION", "TABLE", "LEADER", "PROBLEM")
	for _, r := range regions {
		leader, _ := replicas(r)
		g.row(metasrv.RegionID(r.RegionId).String(), tableName(r.GetTableName()), replicaText(leader), r.Problem)
	}
	g.end()
}

// regionState returns the state of a region's table, and whether the region is being handed over.
func regionState(r *metasrvpb.RegionInfo) string {
	text := label(r.TableState, "TABLE_STATE_")
	if r.Demoting {
		text += ", demoting"
	}
	return text
}

// replicas returns a region's leader, nil where it has none, and the other replicas as text.
func replicas(r *metasrvpb.RegionInfo) (leader *metasrvpb.Replica, others string) {
	var texts []string
	for _, rep := range r.Replicas {
		if rep.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
			leader = rep
			continue
		}
		text := replicaText(rep)
		switch {
		case rep.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER:
			text += " learner"
		case !rep.InSync:
			text += " not in sync"
		}
		texts = append(texts, text)
	}
	return leader, strings.Join(texts, ", ")
}

func replicaText(r *metasrvpb.Replica) string {
	if r == nil {
		return "none"
	}
	if r.Lost {
		return nodeText(r.Peer) + " lost"
	}
	return nodeText(r.Peer)
}
