package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) tableCommand() *cobra.Command {
	cmd := group("table", "Tables, and where their regions are",
		a.tableListCommand(),
		a.onTable("get NAME", "Show one table with its columns", a.getTable),
		a.tableRouteCommand(),
		a.tableDropCommand(), a.tableSetReplicasCommand())
	cmd.Aliases = []string{"tables"}
	return cmd
}

func (a *app) tableListCommand() *cobra.Command {
	req := &metasrvpb.ListTablesRequest{}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List the tables",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.SchemaName != "" && req.CatalogName == "" {
				req.CatalogName = defaultCatalog
			}
			req.Header = a.header()
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.listTables(ctx, c, req)
			})
		},
	}
	list.Flags().StringVar(&req.CatalogName, "catalog", "", "`NAME` only those of this catalog")
	list.Flags().StringVar(&req.SchemaName, "schema", "", "`NAME` only those of this schema")
	list.Flags().BoolVar(&req.AllStates, "all", false, "also tables that are being created or dropped")
	return list
}

// onTable returns a command that does f with the table of the name given.
func (a *app) onTable(
	use, short string, f func(context.Context, *client.Client, metasrv.TableName) error,
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		Args:              args(cobra.ExactArgs(1), "the name of a table"),
		ValidArgsFunction: a.completeTables,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := parseTableName(args[0])
			if err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return f(ctx, c, name)
			})
		},
	}
}

func (a *app) tableRouteCommand() *cobra.Command {
	cmd := a.onTable("route NAME", "Show where a table's regions are", a.routeTable)
	cmd.Long = "Shows which rows each region of a table holds, and on which nodes its replicas are.\n\n" + regionTerms
	return cmd
}

func (a *app) listTables(ctx context.Context, c *client.Client, req *metasrvpb.ListTablesRequest) error {
	resp, err := c.ListTables(ctx, req)
	if err != nil {
		return err
	}
	slices.SortStableFunc(resp.Tables, func(x, y *metasrvpb.Table) int { return compareNames(x.GetTableName(), y.GetTableName()) })
	return a.show(resp, func(w io.Writer) {
		g := newGrid(w, "TABLE", "ID", "STATE", "REGIONS", "PARTITIONED BY", "CREATED")
		for _, t := range resp.Tables {
			g.row(tableName(t.GetTableName()), number(t.Id), tableState(t), number(regionCount(t.PartitionRule)),
				describeRule(t.PartitionRule), date(t.CreatedAtMs))
		}
		g.end()
	})
}

func compareNames(x, y *metasrvpb.TableName) int {
	return cmp.Or(
		strings.Compare(x.GetCatalogName(), y.GetCatalogName()),
		strings.Compare(x.GetSchemaName(), y.GetSchemaName()),
		strings.Compare(x.GetTableName(), y.GetTableName()),
	)
}

func tableState(t *metasrvpb.Table) string { return label(t.GetState(), "TABLE_STATE_") }

func (a *app) getTable(ctx context.Context, c *client.Client, name metasrv.TableName) error {
	resp, err := c.Catalog().GetTable(ctx, &metasrvpb.GetTableRequest{Header: a.header(), TableName: toProto(name)})
	if err != nil {
		return err
	}
	t := resp.GetTable()
	return a.show(resp, func(w io.Writer) {
		g := newGrid(w)
		g.row("Table", tableName(t.GetTableName()))
		g.row("Id", number(t.GetId()))
		g.row("State", tableState(t))
		g.row("Created", date(t.GetCreatedAtMs()))
		g.row("Partitioned by", describeRule(t.GetPartitionRule()))
		g.row("Primary key", strings.Join(t.GetSchema().GetPrimaryKey(), ", "))
		g.row("Time index", t.GetSchema().GetTimeIndex())
		g.row("Options", pairs(t.GetSchema().GetOptions()))
		g.row("Schema version", number(t.GetSchemaVersion()))
		g.end()
		if len(t.GetSchema().GetColumns()) == 0 {
			return
		}
		fmt.Fprintln(w)
		g = newGrid(w, "COLUMN", "TYPE", "NULLABLE", "COMMENT")
		for _, col := range t.GetSchema().GetColumns() {
			g.row(col.Name, columnType(col), yesNo(col.Nullable), col.Comment)
		}
		g.end()
	})
}

func columnType(c *metasrvpb.Column) string {
	if c.NativeType != "" {
		return c.NativeType
	}
	return label(c.Type, "DATA_TYPE_")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// routeOf returns the route of one table.
func (a *app) routeOf(
	ctx context.Context, c *client.Client, name metasrv.TableName,
) (*metasrvpb.RouteResponse, *metasrvpb.TableRoute, error) {
	resp, err := c.Router().Route(ctx, &metasrvpb.RouteRequest{
		Header: a.header(), TableNames: []*metasrvpb.TableName{toProto(name)},
	})
	if err != nil {
		return nil, nil, err
	}
	if n := len(resp.TableRoutes); n != 1 {
		return nil, nil, fmt.Errorf("asked for the route of table %s, got %d routes", name, n)
	}
	return resp, resp.TableRoutes[0], nil
}

func (a *app) routeTable(ctx context.Context, c *client.Client, name metasrv.TableName) error {
	resp, route, err := a.routeOf(ctx, c, name)
	if err != nil {
		return err
	}
	t := route.GetTable()
	return a.show(resp, func(w io.Writer) {
		fmt.Fprintf(w, "table %s, id %d, route version %d, schema version %d\n\n",
			tableName(t.GetTableName()), t.GetId(), route.RouteVersion, t.GetSchemaVersion())
		g := newGrid(w, "REGION", "PARTITION", "LEADER", "FOLLOWERS", "LEADER EPOCH", "CONF VERSION")
		for _, r := range route.RegionRoutes {
			followers := make([]string, len(r.FollowerPeerIndexes))
			for i, index := range r.FollowerPeerIndexes {
				followers[i] = peerText(resp.Peers, index)
			}
			g.row(metasrv.RegionID(r.GetRegion().GetId()).String(),
				describePartition(t.GetPartitionRule(), r.GetRegion()),
				peerText(resp.Peers, r.LeaderPeerIndex), strings.Join(followers, ", "),
				number(r.LeaderEpoch), number(r.ConfVersion))
		}
		g.end()
	})
}

// peerText returns the node that an index of a route stands for; an index beyond the peers stands for none.
func peerText(peers []*metasrvpb.Peer, index uint64) string {
	if index >= uint64(len(peers)) {
		return "none"
	}
	return nodeText(peers[index])
}

func nodeText(p *metasrvpb.Peer) string { return fmt.Sprintf("%d (%s)", p.GetId(), p.GetAddr()) }

func (a *app) tableDropCommand() *cobra.Command {
	yes := false
	cmd := a.onTable("drop NAME", "Drop a table with its data",
		func(ctx context.Context, c *client.Client, name metasrv.TableName) error {
			return a.dropTable(ctx, c, name)
		})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes {
			if err := a.confirmDrop(cmd.Context(), args[0]); err != nil {
				return err
			}
		}
		return run(cmd, args)
	}
	cmd.Long = "Drops a table. It is no longer routed, and its name is free, when the command returns;\n" +
		"the datanodes then delete its data. There is no way back."
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return cmd
}

var errNotConfirmed = errors.New("nothing was dropped")

// confirmDrop shows what is about to go and has the person type its name.
func (a *app) confirmDrop(ctx context.Context, arg string) error {
	name, err := parseTableName(arg)
	if err != nil {
		return err
	}
	if !a.interactive {
		return usagef("dropping a table asks for confirmation, and this is no terminal; to drop %s, add --yes", name)
	}
	err = a.connected(ctx, func(ctx context.Context, c *client.Client) error {
		_, route, err := a.routeOf(ctx, c, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.err, "Table %s (id %d, %s) and all its data will be deleted.\nType %s to drop it: ",
			name, route.GetTable().GetId(), plural(uint64(len(route.RegionRoutes)), "region"), name.Table)
		return nil
	})
	if err != nil {
		return err
	}
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the confirmation: %w", err)
	}
	if strings.TrimSpace(line) != name.Table {
		return errNotConfirmed
	}
	return nil
}

func (a *app) dropTable(ctx context.Context, c *client.Client, name metasrv.TableName) error {
	// A write: it has no read level, and the client library adds a request id.
	resp, err := c.Router().Delete(ctx, &metasrvpb.DeleteRequest{
		Header: &metasrvpb.RequestHeader{}, TableName: toProto(name),
	})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		var id, regions uint64
		for _, r := range resp.TableRoutes {
			id, regions = r.GetTable().GetId(), uint64(len(r.RegionRoutes))
		}
		fmt.Fprintf(w, "dropped table %s, id %d; the datanodes now delete its %s\n", name, id, plural(regions, "region"))
	})
}

// completeTables offers the names of the tables to the shell. It stays silent where there is no cluster.
func (a *app) completeTables(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 && a.checkFlags() == nil {
		_ = a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			resp, err := c.Catalog().ListTables(ctx, &metasrvpb.ListTablesRequest{
				Header: &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE},
			})
			for _, t := range resp.GetTables() {
				names = append(names, tableName(t.GetTableName()))
			}
			return err
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
