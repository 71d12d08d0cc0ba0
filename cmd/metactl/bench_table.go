package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// tableBench creates tables on simulated datanodes.
type tableBench struct {
	nodeCount int
	regions   uint32
	replicas  uint32
	// prefix begins the names of this run's tables.
	prefix   string
	names    loadgen.Keys
	template *loadgen.Template
	nodes    *benchNodes
	// placed is told of each table that was created, if it is not nil. It must not keep what it is given.
	placed func(name []byte, c *creation) error
}

func (a *app) benchTableCommand() *cobra.Command {
	t := &tableBench{}
	return a.benchCommandOf("create-table", "Measure the creation of tables",
		"Measures the creation of tables: Router.Create, which places and reserves the regions, then Catalog.CommitTable.\n"+
			"The datanodes are simulated by this command: they hold nothing, so it runs only on a cluster without datanodes\n"+
			"of its own.",
		func(o *benchOptions, f *pflag.FlagSet) {
			f.IntVar(&t.nodeCount, "nodes", 0, "`N` datanodes to simulate (required)")
			f.Uint32Var(&t.regions, "regions", 10, "`N` regions of a table")
			f.Uint32Var(&t.replicas, "replicas", 2, "`N` replicas of a region")
			keepFlag(o, f)
		},
		func(o *benchOptions) (workload, error) {
			switch {
			case t.nodeCount == 0:
				return workload{}, usagef("--nodes is missing: say how many datanodes are to be simulated, for example --nodes 10")
			case t.nodeCount < int(t.replicas):
				return workload{}, usagef("--nodes is %d; each of the --replicas %d of a region needs a node of its own", t.nodeCount, t.replicas)
			case t.regions < 1 || t.replicas < 1:
				return workload{}, usagef("--regions and --replicas must be at least 1")
			}
			t.prefix = "t" + strconv.FormatInt(time.Now().UnixMilli(), 36) + "_"
			if err := t.encode(); err != nil {
				return workload{}, err
			}
			return workload{
				writes: t.writes(o),
				prepare: func(ctx context.Context, c *client.Client) error {
					return t.prepare(ctx, c)
				},
				operation: t.operation,
				clean: func(ctx context.Context, c *client.Client) ([]string, error) {
					return t.clean(ctx, c, o)
				},
				items: "regions", perOperation: int(t.regions),
				settings: map[string]any{"nodes": t.nodeCount, "regions": t.regions, "replicas": t.replicas},
			}, nil
		})
}

func (t *tableBench) writes(o *benchOptions) string {
	end := "and drops them afterwards"
	if o.keep {
		end = "and keeps them"
	}
	return fmt.Sprintf("Registers %d simulated datanodes from id %d on, which stay registered; creates tables %s.%s.%s… on them, %s.",
		t.nodeCount, firstBenchNode, defaultCatalog, benchSchema, t.prefix, end)
}

func (t *tableBench) prepare(ctx context.Context, c *client.Client) error {
	if err := otherDatanodes(ctx, c); err != nil {
		return err
	}
	_, err := c.Catalog().CreateSchema(ctx, &metasrvpb.CreateSchemaRequest{CatalogName: defaultCatalog, SchemaName: benchSchema})
	if err != nil && !errors.Is(err, metasrv.ErrSchemaExists) {
		return err
	}
	t.nodes, err = startBenchNodes(ctx, c, t.nodeCount)
	return err
}

// request creates a table of the given name.
func (t *tableBench) request(name string) *metasrvpb.CreateRequest {
	return &metasrvpb.CreateRequest{
		TableName: &metasrvpb.TableName{CatalogName: defaultCatalog, SchemaName: benchSchema, TableName: name},
		Schema: &metasrvpb.TableSchema{
			Columns: []*metasrvpb.Column{
				{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING},
				{Name: "ts", Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP},
				{Name: "value", Type: metasrvpb.DataType_DATA_TYPE_FLOAT64, Nullable: true},
			},
			PrimaryKey: []string{"host", "ts"},
			TimeIndex:  "ts",
		},
		PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
			Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: t.regions},
		}},
		Replicas: t.replicas,
	}
}

// encode makes the request in which only the name differs from table to table.
func (t *tableBench) encode() error {
	t.names = loadgen.NewKeys(t.prefix, 0)
	first := t.names.Append(nil, 0)
	encoded, err := proto.Marshal(t.request(string(first)))
	if err != nil {
		return err
	}
	t.template, err = loadgen.NewTemplate(encoded, first)
	return err
}

func (t *tableBench) operation(l *links, client int) loadgen.Op {
	var name []byte
	var created creation
	creating, committing := loadgen.Answer{Keep: true}, loadgen.Answer{}
	return func(_ context.Context, n uint64) error {
		name = t.names.Append(name[:0], n)
		if err := l.call(client, metasrvpb.Router_Create_FullMethodName, t.template.With(name), &creating); err != nil {
			return err
		}
		if err := created.read(creating.Bytes); err != nil {
			return err
		}
		commit, err := created.commit(t.nodes.incarnation)
		if err != nil {
			return err
		}
		if err := l.call(client, metasrvpb.Catalog_CommitTable_FullMethodName, commit, &committing); err != nil || t.placed == nil {
			return err
		}
		return t.placed(name, &created)
	}
}

// clean drops the tables of this run, and the schema where nothing else is in it.
func (t *tableBench) clean(ctx context.Context, c *client.Client, o *benchOptions) ([]string, error) {
	if t.nodes == nil {
		return nil, nil // refused
	}
	defer t.nodes.end()
	tables := fmt.Sprintf("tables %s.%s.%s…", defaultCatalog, benchSchema, t.prefix)
	left := []string{t.nodes.names()}
	if o.keep {
		return append(left, tables), nil
	}
	resp, err := c.ListTables(ctx, &metasrvpb.ListTablesRequest{CatalogName: defaultCatalog, SchemaName: benchSchema})
	if err != nil {
		return append(left, tables), err
	}
	g, dropping := errgroup.WithContext(ctx)
	g.SetLimit(64)
	others := false
	for _, table := range resp.GetTables() {
		if !strings.HasPrefix(table.GetTableName().GetTableName(), t.prefix) {
			others = true
			continue
		}
		g.Go(func() error {
			_, err := c.Router().Delete(dropping, &metasrvpb.DeleteRequest{TableName: table.GetTableName()})
			if errors.Is(err, metasrv.ErrTableNotFound) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return append(left, tables), err
	}
	if others {
		return left, nil
	}
	_, err = c.Catalog().DropSchema(ctx, &metasrvpb.DropSchemaRequest{CatalogName: defaultCatalog, SchemaName: benchSchema})
	if err != nil {
		// Tables whose creation ended in between are aborted by metasrv.
		left = append(left, fmt.Sprintf("schema %s.%s", defaultCatalog, benchSchema))
	}
	return left, nil
}
