package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const oneRegion = "the id of a region, as metactl region list shows it: 1024/0"

// parseRegion reads the id of a region: table/number, or one number.
func parseRegion(s string) (uint64, error) {
	table, number, two := strings.Cut(s, "/")
	if !two {
		id, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, usagef("%q is not the id of a region, such as 1024/0", s)
		}
		return id, nil
	}
	t, err := strconv.ParseUint(table, 10, 32)
	n, err2 := strconv.ParseUint(number, 10, 32)
	if err != nil || err2 != nil {
		return 0, usagef("%q is not the id of a region, such as 1024/0", s)
	}
	return uint64(metasrv.NewRegionID(metasrv.TableID(t), uint32(n))), nil
}

func (a *app) regionGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get REGION", Args: args(cobra.ExactArgs(1), oneRegion),
		Short: "Show one region: its replicas, what is wrong with it, what is being done with it",
		Long:  "Shows one region with its replicas.\n\n" + regionTerms,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseRegion(args[0])
			if err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Cluster().GetRegion(ctx, &metasrvpb.GetRegionRequest{Header: a.header(), RegionId: id})
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { regionDetails(w, resp) })
			})
		},
	}
}

func regionDetails(w io.Writer, resp *metasrvpb.GetRegionResponse) {
	r := resp.GetRegion()
	g := newGrid(w)
	g.row("Region", metasrv.RegionID(r.RegionId).String())
	g.row("Table", tableName(r.GetTableName()))
	g.row("State", label(r.TableState, "TABLE_STATE_"))
	g.row("Leader epoch", number(r.LeaderEpoch))
	g.row("Conf version", number(r.ConfVersion))
	g.row("Problem", r.Problem)
	if p := resp.GetProcedure(); p != nil {
		g.row("Procedure", fmt.Sprintf("%d: %s, %s", p.ProcedureId, procedureKind(p), procedureStep(p)))
	}
	g.end()
	fmt.Fprintln(w)
	g = newGrid(w, "REPLICA", "NODE", "ROLE", "IN SYNC", "ROWS", "SIZE")
	for _, rep := range r.Replicas {
		inSync := "no"
		switch {
		case rep.Lost:
			inSync = "lost"
		case rep.InSync:
			inSync = "yes"
		}
		rows, bytes := none, none
		if stat := rep.GetStat(); stat != nil {
			rows, bytes = number(stat.ApproximateRows), size(stat.ApproximateSize)
		}
		g.row(number(rep.ReplicaId), nodeText(rep.Peer), label(rep.Role, "REPLICA_ROLE_"), inSync, rows, bytes)
	}
	g.end()
}

// onRegion returns a command that starts a procedure on one region.
func (a *app) onRegion(use, short, long string, set func(region uint64, req *metasrvpb.StartProcedureRequest)) *cobra.Command {
	cmd := &cobra.Command{Use: use + " REGION", Args: args(cobra.ExactArgs(1), oneRegion), Short: short, Long: long}
	return a.startCommand(cmd, func(args []string) (*metasrvpb.StartProcedureRequest, error) {
		id, err := parseRegion(args[0])
		if err != nil {
			return nil, err
		}
		req := &metasrvpb.StartProcedureRequest{}
		set(id, req)
		return req, nil
	})
}

func (a *app) regionMigrateCommand() *cobra.Command {
	m := &metasrvpb.MigrateRegion{}
	cmd := a.onRegion("migrate", "Move a replica of a region to another node",
		`Moves a replica of a region to another node: a new one is made there and brought in sync, becomes the region leader if the old one
was, and then the old one is removed. Until the new one leads, everything can be taken back: metactl procedure cancel.`,
		func(region uint64, req *metasrvpb.StartProcedureRequest) {
			m.RegionId = region
			req.Procedure = &metasrvpb.StartProcedureRequest_MigrateRegion{MigrateRegion: m}
		})
	cmd.Flags().Uint64Var(&m.FromNodeId, "from", 0, "`ID` of the node that has the replica; default: that of the region leader")
	cmd.Flags().Uint64Var(&m.ToNodeId, "to", 0, "`ID` of the node that gets it; default: the best one")
	return cmd
}

func (a *app) regionTransferCommand() *cobra.Command {
	t := &metasrvpb.TransferRegionLeader{}
	cmd := a.onRegion("transfer-leader", "Make another in-sync replica the leader of a region",
		`Makes another replica the leader of a region. It must be in sync: it has every row that was acknowledged.`,
		func(region uint64, req *metasrvpb.StartProcedureRequest) {
			t.RegionId = region
			req.Procedure = &metasrvpb.StartProcedureRequest_TransferRegionLeader{TransferRegionLeader: t}
		})
	cmd.Flags().Uint64Var(&t.ToNodeId, "to", 0, "`ID` of the node that leads then; default: the best one")
	return cmd
}

func (a *app) regionAddReplicaCommand() *cobra.Command {
	r := &metasrvpb.AddRegionReplica{}
	cmd := a.onRegion("add-replica", "Give a region one more replica",
		`Gives a region one more replica. To have another number of replicas for good, see: metactl table set-replicas`,
		func(region uint64, req *metasrvpb.StartProcedureRequest) {
			r.RegionId = region
			req.Procedure = &metasrvpb.StartProcedureRequest_AddRegionReplica{AddRegionReplica: r}
		})
	cmd.Flags().Uint64Var(&r.NodeId, "node", 0, "`ID` of the node that gets it; default: the best one")
	return cmd
}

func (a *app) regionRemoveReplicaCommand() *cobra.Command {
	r := &metasrvpb.RemoveRegionReplica{}
	cmd := a.onRegion("remove-replica", "Remove a replica of a region",
		`Removes a replica of a region; if it leads, another one becomes the leader first. The last one that is in sync can't be removed.`,
		func(region uint64, req *metasrvpb.StartProcedureRequest) {
			r.RegionId = region
			req.Procedure = &metasrvpb.StartProcedureRequest_RemoveRegionReplica{RemoveRegionReplica: r}
		})
	cmd.Flags().Uint64Var(&r.NodeId, "node", 0, "`ID` of the node that has it (required)")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.NodeId == 0 {
			return usagef("--node is missing: the node whose replica is to be removed")
		}
		return run(cmd, args)
	}
	return cmd
}
