package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) sessionCommand() *cobra.Command {
	limit := uint32(100)
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List open sessions, and when they expire",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.listSessions(ctx, c, limit) })
		},
	}
	list.Flags().Uint32Var(&limit, "limit", limit, "`N` most sessions to list")
	ttl := &cobra.Command{
		Use: "ttl DURATION", Args: args(cobra.ExactArgs(1), "a duration"),
		Short: "Change how long after its last use a session is forgotten, like 10m",
		Long: `Changes how long after its last use a session is forgotten, from 10s to 168h.

A client whose session was forgotten opens another one by itself. Requests that were under way for longer end with
OUTCOME_UNKNOWN, so the time must outlast their retries. A shorter time counts when the longer one before it has passed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil || d <= 0 {
				return usagef("%q is no duration; give one like 30s or 10m", args[0])
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				_, err := c.Maintenance().ConfigureSessions(ctx, &metasrvpb.ConfigureSessionsRequest{TtlMs: uint64(d.Milliseconds())})
				return err
			})
		},
	}
	return group("session", "Clients whose requests are executed once", list, ttl)
}

func (a *app) listSessions(ctx context.Context, c *client.Client, limit uint32) error {
	resp, err := c.Maintenance().Sessions(ctx, &metasrvpb.SessionsRequest{Limit: limit})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		g := newGrid(w, "SESSION", "IDLE", "RESULTS", "BYTES")
		for _, s := range resp.Sessions {
			g.row(number(s.Session), span(millis(s.IdleMs)), number(s.Results), size(s.ResultBytes))
		}
		g.end()
		fmt.Fprintf(w, "\n%s, forgotten %s after the last use\n", plural(resp.Open, "open session"), span(millis(resp.TtlMs)))
		if resp.ConfiguredTtlMs != resp.TtlMs {
			fmt.Fprintf(w, "%s is configured, and counts when the longer time has passed since that was changed\n", span(millis(resp.ConfiguredTtlMs)))
		}
	})
}
