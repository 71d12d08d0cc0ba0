package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const atHelp = "`INDEX` make the change only if the configuration is still the one with this index (see: metactl member list)"

func (a *app) memberAddCommand() *cobra.Command {
	req := &metasrvpb.AddMemberRequest{}
	cmd := a.memberCommandOf("add ID", "Take a new member in, as a non-voter",
		`Takes a new member in as a non-voter: it receives the log and doesn't vote. Promote it when it has caught up.
An id is used once: one that belonged to a member that was removed is refused. Adding it again changes nothing.`,
		func(ctx context.Context, c *client.Client, id string) error {
			if req.RaftAddr == "" {
				return usagef("--raft-addr is missing: the address at which the other members reach the raft port of %s", id)
			}
			req.Id = id
			resp, err := c.Maintenance().AddMember(ctx, req)
			if err != nil {
				return err
			}
			voter := isVoter(ctx, c, id)
			return a.show(resp, func(w io.Writer) {
				if voter {
					fmt.Fprintf(w, "member %s at %s is in the cluster already, and votes (configuration %d); nothing was changed\n",
						id, req.RaftAddr, resp.ConfigurationIndex)
					return
				}
				fmt.Fprintf(w, "added member %s at %s as a non-voter (configuration %d)\n\nStart it with an empty folder, if it doesn't run yet:\n"+
					"  metasrv server --node-id %s --data-dir FOLDER --raft-addr %s --initial-cluster-state existing …\n"+
					"When it has caught up:\n  metactl member promote %s\n",
					id, req.RaftAddr, resp.ConfigurationIndex, id, req.RaftAddr, id)
			})
		})
	cmd.Flags().StringVar(&req.RaftAddr, "raft-addr", "", "`HOST:PORT` address at which the other members reach it (required)")
	cmd.Flags().Uint64Var(&req.ConfigurationIndex, "at", 0, atHelp)
	return cmd
}

// isVoter reports whether the cluster says that a member votes.
func isVoter(ctx context.Context, c *client.Client, id string) bool {
	resp, err := c.Cluster().ListMembers(ctx, &metasrvpb.ListMembersRequest{})
	return err == nil && slices.ContainsFunc(resp.Members, func(m *metasrvpb.Member) bool { return m.GetId() == id && m.GetVoter() })
}

func (a *app) memberPromoteCommand() *cobra.Command {
	req := &metasrvpb.PromoteMemberRequest{}
	cmd := a.memberCommandOf("promote ID", "Let a non-voter vote, once it has caught up",
		"Makes a non-voter a voter. It is refused, with the number of entries that are missing, until the member has caught up.",
		func(ctx context.Context, c *client.Client, id string) error {
			req.Id = id
			resp, err := c.Maintenance().PromoteMember(ctx, req)
			if err != nil {
				return err
			}
			return a.show(resp, func(w io.Writer) {
				fmt.Fprintf(w, "member %s votes (configuration %d)\n", id, resp.ConfigurationIndex)
			})
		})
	cmd.Flags().Uint64Var(&req.ConfigurationIndex, "at", 0, atHelp)
	return cmd
}

func (a *app) memberRemoveCommand() *cobra.Command {
	req := &metasrvpb.RemoveMemberRequest{}
	cmd := a.memberCommandOf("remove ID", "Remove a member for ever",
		`Removes a member. It ends by itself when it hears of it, and its id is never used again.

It is refused where too few of the voters that remain answer: the cluster would stop. With --force they are not asked;
the change still needs a majority of the present voters. One of three voters is removed while it works only with
--shrink: two bear no loss, so add and promote another one first. A metasrv leader that is removed hands over first. Where the
majority is gone already, see: metasrv recover --help`,
		func(ctx context.Context, c *client.Client, id string) error {
			req.Id = id
			resp, err := c.Maintenance().RemoveMember(ctx, req)
			if err != nil {
				return err
			}
			return a.show(resp, func(w io.Writer) {
				fmt.Fprintf(w, "removed member %s (configuration %d)\n", id, resp.ConfigurationIndex)
			})
		})
	cmd.Flags().BoolVar(&req.Force, "force", false, "don't ask whether enough of the remaining voters answer")
	cmd.Flags().BoolVar(&req.Shrink, "shrink", false, "let fewer than three voters remain")
	cmd.Flags().Uint64Var(&req.ConfigurationIndex, "at", 0, atHelp)
	return cmd
}

func (a *app) memberUpdateCommand() *cobra.Command {
	req := &metasrvpb.UpdateMemberRequest{}
	cmd := a.memberCommandOf("update ID", "Change the address at which the others reach a member",
		"Changes the raft address of a member. Tell the cluster first, then start the member under the new address.",
		func(ctx context.Context, c *client.Client, id string) error {
			if req.RaftAddr == "" {
				return usagef("--raft-addr is missing: the new address of the raft port of %s", id)
			}
			req.Id = id
			resp, err := c.Maintenance().UpdateMember(ctx, req)
			if err != nil {
				return err
			}
			return a.show(resp, func(w io.Writer) {
				fmt.Fprintf(w, "the other members reach %s at %s now (configuration %d)\n", id, req.RaftAddr, resp.ConfigurationIndex)
			})
		})
	cmd.Flags().StringVar(&req.RaftAddr, "raft-addr", "", "`HOST:PORT` new address (required)")
	cmd.Flags().Uint64Var(&req.ConfigurationIndex, "at", 0, atHelp)
	return cmd
}

func (a *app) memberTransferCommand() *cobra.Command {
	return &cobra.Command{
		Use: "transfer-leader [ID]", Args: args(cobra.MaximumNArgs(1), "at most the id of a member"),
		Short: "Make another member the metasrv leader",
		Long:  "Makes another voter the metasrv leader: the one named, or else the one with the most of the log.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &metasrvpb.TransferLeadershipRequest{}
			if len(args) == 1 {
				req.Id = args[0]
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Maintenance().TransferLeadership(ctx, req)
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { fmt.Fprintf(w, "member %s is the metasrv leader\n", resp.Id) })
			})
		},
	}
}

// memberCommandOf returns a command on one member.
func (a *app) memberCommandOf(use, short, long string, f func(context.Context, *client.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Args: args(cobra.ExactArgs(1), "the id of a member"), Short: short, Long: long,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error { return f(ctx, c, args[0]) })
		},
	}
}
