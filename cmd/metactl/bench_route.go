package main

import (
	"context"
	"math/rand/v2"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// benchSchema is where bench create-table puts its tables.
const benchSchema = "bench"

// routeRequests is how many different requests are encoded before the run.
const routeRequests = 4096

// routeBench asks for the routes of tables.
type routeBench struct {
	schema        string
	tablesPerCall int
	requests      [][]byte
}

func (a *app) benchRouteCommand() *cobra.Command {
	r := &routeBench{}
	return a.benchCommandOf("route", "Measure Router.Route: look up where tables are",
		"Measures Router.Route: looks up the routes of random tables of a schema. It writes nothing. Tables to look up are\n"+
			"made by metactl bench create-table --keep.",
		func(o *benchOptions, f *pflag.FlagSet) {
			readFlags(o, f)
			f.StringVar(&r.schema, "schema", benchSchema, "`NAME` schema whose tables are looked up")
			f.IntVar(&r.tablesPerCall, "tables-per-call", 1, "`N` tables that one request asks for")
		},
		func(o *benchOptions) (workload, error) {
			if r.tablesPerCall < 1 {
				return workload{}, usagef("--tables-per-call is %d; it must be at least 1", r.tablesPerCall)
			}
			return workload{
				prepare:   func(ctx context.Context, c *client.Client) error { return r.prepare(ctx, c, o) },
				operation: r.operation,
				items:     "routes", perOperation: r.tablesPerCall,
				settings: map[string]any{"schema": r.schema, "tables_per_call": r.tablesPerCall},
			}, nil
		})
}

// prepare encodes requests for random tables.
func (r *routeBench) prepare(ctx context.Context, c *client.Client, o *benchOptions) error {
	catalog, schema, err := parseSchemaName(r.schema)
	if err != nil {
		return err
	}
	resp, err := c.ListTables(ctx, &metasrvpb.ListTablesRequest{CatalogName: catalog, SchemaName: schema})
	if err != nil {
		return err
	}
	tables := resp.GetTables()
	if len(tables) == 0 {
		return usagef("schema %s has no tables to look up; make some with: metactl bench create-table --nodes 3 --keep", r.schema)
	}
	for range max(routeRequests/r.tablesPerCall, 64) {
		req := &metasrvpb.RouteRequest{Header: o.readHeader()}
		for range r.tablesPerCall {
			req.TableNames = append(req.TableNames, tables[rand.IntN(len(tables))].GetTableName()) //nolint:gosec // a load, no secret
		}
		b, err := proto.Marshal(req)
		if err != nil {
			return err
		}
		r.requests = append(r.requests, b)
	}
	return nil
}

func (r *routeBench) operation(l *links, client int) loadgen.Op {
	random := randomOf(client)
	var answer loadgen.Answer
	return func(context.Context, uint64) error {
		request := r.requests[random.IntN(len(r.requests))]
		return l.call(client, metasrvpb.Router_Route_FullMethodName, request, &answer)
	}
}
