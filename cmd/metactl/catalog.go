package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) catalogCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List the catalogs",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.connected(cmd.Context(), a.listCatalogs)
		},
	}
	get := &cobra.Command{
		Use: "get NAME", Args: args(cobra.ExactArgs(1), "the name of a catalog"),
		Short: "Show one catalog",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.getCatalog(ctx, c, args[0])
			})
		},
	}
	cmd := group("catalog", "Catalogs, which hold schemas", list, get)
	cmd.Aliases = []string{"catalogs"}
	return cmd
}

func (a *app) listCatalogs(ctx context.Context, c *client.Client) error {
	resp, err := c.Catalog().ListCatalogs(ctx, &metasrvpb.ListCatalogsRequest{Header: a.header()})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) { catalogRows(w, resp.Catalogs...) })
}

func (a *app) getCatalog(ctx context.Context, c *client.Client, name string) error {
	resp, err := c.Catalog().GetCatalog(ctx, &metasrvpb.GetCatalogRequest{Header: a.header(), CatalogName: name})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) { catalogRows(w, resp.GetCatalog()) })
}

func catalogRows(w io.Writer, catalogs ...*metasrvpb.CatalogInfo) {
	g := newGrid(w, "CATALOG", "CREATED")
	for _, c := range catalogs {
		g.row(c.GetName(), date(c.GetCreatedAtMs()))
	}
	g.end()
}

func (a *app) schemaCommand() *cobra.Command {
	catalog := ""
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List the schemas",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.listSchemas(ctx, c, catalog)
			})
		},
	}
	list.Flags().StringVar(&catalog, "catalog", "", "`NAME` only those of this catalog")
	get := &cobra.Command{
		Use: "get NAME", Args: args(cobra.ExactArgs(1), "the name of a schema"),
		Short: "Show one schema; NAME is catalog.schema or schema",
		RunE: func(cmd *cobra.Command, args []string) error {
			catalog, schema, err := parseSchemaName(args[0])
			if err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.getSchema(ctx, c, catalog, schema)
			})
		},
	}
	cmd := group("schema", "Schemas, which hold tables", list, get)
	cmd.Aliases = []string{"schemas"}
	return cmd
}

func (a *app) listSchemas(ctx context.Context, c *client.Client, catalog string) error {
	resp, err := c.Catalog().ListSchemas(ctx, &metasrvpb.ListSchemasRequest{Header: a.header(), CatalogName: catalog})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) { schemaRows(w, resp.Schemas...) })
}

func (a *app) getSchema(ctx context.Context, c *client.Client, catalog, schema string) error {
	resp, err := c.Catalog().GetSchema(ctx, &metasrvpb.GetSchemaRequest{
		Header: a.header(), CatalogName: catalog, SchemaName: schema,
	})
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) { schemaRows(w, resp.GetSchema()) })
}

func schemaRows(w io.Writer, schemas ...*metasrvpb.SchemaInfo) {
	g := newGrid(w, "CATALOG", "SCHEMA", "CREATED")
	for _, s := range schemas {
		g.row(s.GetCatalogName(), s.GetSchemaName(), date(s.GetCreatedAtMs()))
	}
	g.end()
}
