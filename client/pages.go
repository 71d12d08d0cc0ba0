package client

import (
	"context"

	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// defaultPage is how many tables or regions one call asks for where the request doesn't say.
const defaultPage = 1000

// ListTables returns the tables that a request asks for in the order of their ids, in one answer made of pages, each of
// req.Limit tables or, where that is 0, of 1000. Its header is that of the last page, with the greatest age of all.
func (c *Client) ListTables(ctx context.Context, req *metasrvpb.ListTablesRequest) (*metasrvpb.ListTablesResponse, error) {
	page := proto.CloneOf(req)
	if page.Limit == 0 {
		page.Limit = defaultPage
	}
	all := &metasrvpb.ListTablesResponse{}
	for {
		resp, err := c.Catalog().ListTables(ctx, page)
		if err != nil {
			return nil, err
		}
		all.Header = headerOfPages(all.GetHeader(), resp.GetHeader())
		all.Tables = append(all.Tables, resp.GetTables()...)
		if page.PageToken = resp.GetNextPageToken(); page.PageToken == "" {
			return all, nil
		}
	}
}

// ListRegions returns the regions that a request asks for, as ListTables does.
func (c *Client) ListRegions(ctx context.Context, req *metasrvpb.ListRegionsRequest) (*metasrvpb.ListRegionsResponse, error) {
	page := proto.CloneOf(req)
	if page.Limit == 0 {
		page.Limit = defaultPage
	}
	all := &metasrvpb.ListRegionsResponse{}
	for {
		resp, err := c.Cluster().ListRegions(ctx, page)
		if err != nil {
			return nil, err
		}
		all.Header = headerOfPages(all.GetHeader(), resp.GetHeader())
		all.Regions = append(all.Regions, resp.GetRegions()...)
		if page.PageToken = resp.GetNextPageToken(); page.PageToken == "" {
			return all, nil
		}
	}
}

// headerOfPages returns the header of an answer made of pages, from that of those before and that of the last. The age
// is unknown where that of one page is.
func headerOfPages(before, last *metasrvpb.ResponseHeader) *metasrvpb.ResponseHeader {
	switch {
	case before == nil || last == nil:
	case before.AgeMs == nil:
		last.AgeMs = nil
	case last.AgeMs != nil:
		last.AgeMs = proto.Uint64(max(before.GetAgeMs(), last.GetAgeMs()))
	}
	return last
}
