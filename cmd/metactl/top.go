package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// minTopInterval keeps the command from being a load of its own.
	minTopInterval = 200 * time.Millisecond
	// maxRanked is the number of regions up to which all of them are fetched to be ranked.
	maxRanked = 20_000
)

// topOptions are what the flags of top say.
type topOptions struct {
	sort     string
	rows     int
	interval time.Duration
	once     bool
	node     uint64
}

func (a *app) topCommand() *cobra.Command {
	o := topOptions{sort: topKeys[0], rows: 10, interval: 2 * time.Second}
	cmd := &cobra.Command{
		Use: "top", Args: noArgs(),
		Short: "Watch the load of nodes and the hottest regions",
		Long: `Shows the nodes with their load and the hottest regions, the highest first, again and again until Ctrl-C.

On a terminal the screen is refreshed in place, and holds as many rows as fit. Elsewhere each refresh follows the one before;
scripts give --once. RCU/S and WCU/S are capacity units per second: one is a read of up to 4 KB or a write of up to 1 KB.
A region's load is that of its leader. With more than ` + fmt.Sprint(maxRanked) + ` regions only those of the busiest node are ranked, or of --node.`,
		Example: `  metactl top
  metactl top --sort writes -n 5 --interval 1s
  metactl top --once -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return a.top(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.sort, "sort", o.sort, "`KEY` what comes first: "+strings.Join(topKeys, ", "))
	flags.IntVarP(&o.rows, "rows", "n", o.rows, "`N` most nodes and most regions to show")
	flags.DurationVar(&o.interval, "interval", o.interval, "`DURATION` time between refreshes, at least "+minTopInterval.String())
	flags.BoolVar(&o.once, "once", false, "show it once and end")
	flags.Uint64Var(&o.node, "node", 0, "`ID` only regions with a replica on this node")
	// It fails only for a flag that doesn't exist.
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(topKeys, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o topOptions) check() error {
	switch {
	case !slices.Contains(topKeys, o.sort):
		return usagef("--sort is %q; it can be %s", o.sort, strings.Join(topKeys, ", "))
	case o.rows < 1:
		return usagef("--rows is %d; it must be above zero", o.rows)
	case o.interval < minTopInterval:
		return usagef("--interval is %v; it must be at least %v", o.interval, minTopInterval)
	}
	return nil
}

// top shows one refresh after the other until ctx ends, which is how a person ends it.
func (a *app) top(ctx context.Context, o topOptions) error {
	// The first answer decides whether there is something to watch; later failures are shown, and pass.
	var load *topLoad
	if err := a.connected(ctx, func(ctx context.Context, c *client.Client) (err error) {
		load, err = a.fetchTop(ctx, c, o)
		return err
	}); err != nil || o.once {
		if err != nil {
			return err
		}
		return a.showTop(load, o)
	}
	c, err := client.New(client.Config{Endpoints: a.endpoints, Logger: discardLogger})
	if err != nil {
		return err
	}
	defer c.Close()
	end, err := a.beginScreen()
	if err != nil {
		return err
	}
	defer end()
	ticker := time.NewTicker(o.interval)
	defer ticker.Stop()
	for {
		if err := a.showTop(load, o); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		fetched, err := a.refreshTop(ctx, c, o)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			load.failure = strings.SplitN(a.explain(ctx, err), "\n", 2)[0]
		default:
			load = fetched
		}
	}
}

// refreshTop fetches within the time that a command has.
func (a *app) refreshTop(ctx context.Context, c *client.Client, o topOptions) (*topLoad, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return a.fetchTop(ctx, c, o)
}

// topLoad is what one refresh shows.
type topLoad struct {
	stats   *metasrvpb.StatsResponse
	nodes   *metasrvpb.ListNodesResponse
	regions *metasrvpb.ListRegionsResponse
	// of is the node whose regions these are, 0 where they are all.
	of uint64
	// failure says why there is nothing newer.
	failure string
}

func (a *app) fetchTop(ctx context.Context, c *client.Client, o topOptions) (*topLoad, error) {
	l := &topLoad{of: o.node}
	var err error
	if l.stats, err = c.Cluster().Stats(ctx, &metasrvpb.StatsRequest{Header: a.header()}); err != nil {
		return nil, err
	}
	if l.nodes, err = c.Cluster().ListNodes(ctx, &metasrvpb.ListNodesRequest{Header: a.header()}); err != nil {
		return nil, err
	}
	if busiest := rankNodes(l.nodes.GetNodes(), topKeys[0]); l.of == 0 && l.stats.GetRegions() > maxRanked && len(busiest) > 0 {
		l.of = busiest[0].GetPeer().GetId()
	}
	l.regions, err = c.ListRegions(ctx, &metasrvpb.ListRegionsRequest{Header: a.header(), NodeId: l.of})
	return l, err
}

// showTop writes one refresh: as JSON, over the one before on a terminal, or below it.
func (a *app) showTop(l *topLoad, o topOptions) error {
	if a.format == formatJSON {
		return a.topJSON(l, o)
	}
	width, height, terminal := a.screen(o)
	lines := l.frame(o, height)
	if !terminal {
		if !o.once {
			lines = append(lines, "")
		}
		_, err := io.WriteString(a.out, strings.Join(lines, "\n")+"\n")
		return err
	}
	_, err := io.WriteString(a.out, paint(lines, width, height))
	return err
}

// topJSON writes what is ranked, in the order in which it is.
func (a *app) topJSON(l *topLoad, o topOptions) error {
	nodes := rankNodes(l.nodes.GetNodes(), o.sort)
	regions := rankRegions(l.regions.GetRegions(), l.periods(), o.sort)
	l.nodes.Nodes = nodes[:min(len(nodes), o.rows)]
	l.regions.Regions = regions[:min(len(regions), o.rows)]
	all := map[string]any{}
	var err error
	for name, m := range map[string]proto.Message{"stats": l.stats, "nodes": l.nodes, "regions": l.regions} {
		if all[name], err = toJSON(m); err != nil {
			return err
		}
	}
	return writeJSON(a.out, all)
}
