package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) lockCommand() *cobra.Command {
	list := a.claimsCommand("List who has which lock and who waits", false)
	release := &cobra.Command{
		Use: "break NAME", Args: args(cobra.ExactArgs(1), "the name of a lock"),
		Short: "Take a lock away from its holder",
		Long: `Takes a lock away from who has it, with everything else that the holder has: the next in line gets it.

The holder may not notice at once, and go on as if it had the lock: what the lock guards is safe only if it refuses the
lower fencing token. A holder that is gone loses its locks by itself after its time to live.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.breakLock(ctx, c, args[0]) })
		},
	}
	return group("lock", "Locks that clients have", list, release)
}

func (a *app) electionCommand() *cobra.Command {
	return group("election", "Who is elected among candidates", a.claimsCommand("List who is elected and who stands by", true))
}

func (a *app) claimsCommand(short string, elections bool) *cobra.Command {
	request := &metasrvpb.ListLocksRequest{Elections: elections, Limit: 1000}
	list := &cobra.Command{
		Use: "list [PREFIX]", Aliases: []string{"ls"}, Args: args(cobra.MaximumNArgs(1), "at most the beginning of names"), Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				request.Prefix = []byte(args[0])
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.listClaims(ctx, c, request) })
		},
	}
	list.Flags().Uint32Var(&request.Limit, "limit", request.Limit, "`N` most names to list")
	return list
}

func (a *app) listClaims(ctx context.Context, c *client.Client, request *metasrvpb.ListLocksRequest) error {
	request.Header = a.header()
	resp, err := c.Locks().ListLocks(ctx, request)
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		columns := []string{"NAME", "HOLDER", "WHO", "TOKEN", "SINCE", "TTL"}
		if request.Elections {
			columns = append(columns, "VALUE")
		}
		g := newGrid(w, columns...)
		for _, n := range resp.Names {
			for _, claim := range n.Claims {
				g.row(claimRow(n.Name, claim, request.Elections)...)
			}
		}
		g.end()
		if resp.More {
			fmt.Fprintf(w, "\nThere are more names than %d; --limit lists more, a prefix fewer.\n", request.Limit)
		}
	})
}

func claimRow(name []byte, claim *metasrvpb.HolderClaim, election bool) []string {
	token := "waits"
	if claim.FencingToken > 0 {
		token = number(claim.FencingToken)
	}
	row := []string{strconv.Quote(string(name)), number(claim.Holder), cmp.Or(claim.HolderName, "-"), token, span(millis(claim.AgeMs)), span(millis(claim.TtlMs))}
	if election {
		row = append(row, strconv.Quote(string(claim.Value)))
	}
	return row
}

func (a *app) breakLock(ctx context.Context, c *client.Client, name string) error {
	resp, err := c.Locks().ListLocks(ctx, &metasrvpb.ListLocksRequest{Prefix: []byte(name), Limit: 1})
	if err != nil {
		return err
	}
	if len(resp.Names) == 0 || string(resp.Names[0].Name) != name {
		return metasrv.ErrNotHeld.With("nobody has a lock %q; metactl lock list shows those that are held", name)
	}
	holder := resp.Names[0].Claims[0]
	if _, err := c.Locks().CloseHolder(ctx, &metasrvpb.CloseHolderRequest{Holder: holder.Holder}); err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		fmt.Fprintf(w, "holder %d (%s) has lost the lock %q, which it had under token %d\n",
			holder.Holder, cmp.Or(holder.HolderName, "-"), name, holder.FencingToken)
	})
}
