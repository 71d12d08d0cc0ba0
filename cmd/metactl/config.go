package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// setting is something that can be set for the whole cluster.
type setting struct {
	name string
	// request returns what sets it to a value, and the value as it is shown; a usage error for what is no value.
	request func(value string) (*metasrvpb.ConfigureRequest, string, error)
}

var settings = []setting{
	{"max-failed-percent", func(value string) (*metasrvpb.ConfigureRequest, string, error) {
		percent, err := strconv.ParseUint(strings.TrimSuffix(value, "%"), 10, 32)
		if err != nil || percent < 1 || percent > 100 {
			return nil, "", usagef("%q is no percentage from 1 to 100", value)
		}
		return &metasrvpb.ConfigureRequest{
			Change: &metasrvpb.ConfigureRequest_MaxFailedPercent{MaxFailedPercent: uint32(percent)},
		}, fmt.Sprint(percent), nil
	}},
	{"lease", func(value string) (*metasrvpb.ConfigureRequest, string, error) {
		lease, err := timeSpan(value)
		if err == nil && lease == 0 {
			err = usagef("a lease of no length is none")
		}
		return &metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_LeaseMs{LeaseMs: inMilliseconds(lease)}}, lease.String(), err
	}},
	{"repair-after", func(value string) (*metasrvpb.ConfigureRequest, string, error) {
		after, err := timeSpan(value)
		return &metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_RepairAfterMs{RepairAfterMs: inMilliseconds(after)}}, after.String(), err
	}},
}

// timeSpan reads a time span of whole milliseconds.
func timeSpan(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d != d.Truncate(time.Millisecond) {
		return 0, usagef("%q is no time span in whole milliseconds, such as 3s, 500ms or 10m", value)
	}
	return d, nil
}

func inMilliseconds(d time.Duration) uint64 { return uint64(d.Milliseconds()) } //nolint:gosec // checked

func (a *app) configCommand() *cobra.Command {
	get := &cobra.Command{
		Use: "get", Args: noArgs(), Short: "Show what is set for the whole cluster",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.connected(cmd.Context(), a.showConfig) },
	}
	set := &cobra.Command{
		Use: "set NAME VALUE", Args: args(cobra.ExactArgs(2), "a name and its value"),
		Short: "Set something for the whole cluster",
		Long: `Sets something for the whole cluster, at once and without a restart.

max-failed-percent: while more than one, and more percent than this, of the datanodes are silent, no region is given to another
node, because the network is more likely at fault than they. 1 to 100, at first 50; 100 switches the limit off.

lease: how long a datanode may serve its regions after a heartbeat that was answered; so long, at least, a region waits for
another leader when its node dies. At least two heartbeat intervals. A shorter one counts for the leases that are granted from
now on; metasrv waits for the longer ones that run.

repair-after: how long a datanode may be silent before its replicas are rebuilt elsewhere; 0 means never.`,
		Example: "  metactl config set lease 2s\n  metactl config set repair-after 30m",
		RunE: func(cmd *cobra.Command, args []string) error {
			var names []string
			for _, s := range settings {
				if s.name != args[0] {
					names = append(names, s.name)
					continue
				}
				req, shown, err := s.request(args[1])
				if err != nil {
					return err
				}
				return a.configure(cmd.Context(), req, fmt.Sprintf("%s is %s", s.name, shown))
			}
			return usagef("there is no %q; what can be set is %s", args[0], strings.Join(names, ", "))
		},
	}
	return group("config", "What is set for the whole cluster", get, set)
}

func (a *app) showConfig(ctx context.Context, c *client.Client) error {
	resp, err := c.Cluster().GetConfig(ctx, &metasrvpb.GetConfigRequest{Header: a.header()})
	if err != nil {
		return err
	}
	span := func(ms uint64) time.Duration { return time.Duration(ms) * time.Millisecond } //nolint:gosec // metasrv bounds it
	return a.show(resp, func(w io.Writer) {
		set := resp.GetConfig()
		fmt.Fprintf(w, "max-failed-percent  %d\n", set.GetMaxFailedPercent())
		fmt.Fprintf(w, "lease               %s", span(set.GetLeaseMs()))
		if longest := set.GetLongestLeaseMs(); longest > 0 {
			fmt.Fprintf(w, " (leases of %s were granted before, and may run still)", span(longest))
		}
		fmt.Fprintln(w)
		if set.GetRepairAfterMs() == 0 {
			fmt.Fprintln(w, "repair-after        never")
			return
		}
		fmt.Fprintf(w, "repair-after        %s\n", span(set.GetRepairAfterMs()))
	})
}
