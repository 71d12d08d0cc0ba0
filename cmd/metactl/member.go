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

func (a *app) memberCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List the members of the cluster",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.connected(cmd.Context(), a.listMembers)
		},
	}
	cmd := group("member", "The metasrv processes that form the cluster", list,
		a.memberAddCommand(), a.memberPromoteCommand(), a.memberRemoveCommand(), a.memberUpdateCommand(), a.memberTransferCommand())
	cmd.Aliases = []string{"members"}
	return cmd
}

func (a *app) listMembers(ctx context.Context, c *client.Client) error {
	resp, err := c.Cluster().ListMembers(ctx, &metasrvpb.ListMembersRequest{Header: a.header()})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		g := newGrid(w, "MEMBER", "ROLE", "GRPC", "RAFT", "HTTP", "VERSION")
		for _, m := range resp.Members {
			g.row(m.Id, memberRole(m), m.GrpcAddr, m.RaftAddr, m.HttpAddr, m.Version)
		}
		g.end()
		if resp.ConfigurationIndex > 0 {
			fmt.Fprintf(w, "\nconfiguration %d\n", resp.ConfigurationIndex)
		}
	})
}

func memberRole(m *metasrvpb.Member) string {
	switch {
	case m.GetLeader():
		return "leader"
	case m.GetVoter():
		return "follower"
	}
	return "non-voter"
}

// number returns n in decimal digits.
func number[T ~uint32 | ~uint64](n T) string { return strconv.FormatUint(uint64(n), 10) }
