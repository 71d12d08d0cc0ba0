package client

import (
	"context"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestListsAreMadeOfPages(t *testing.T) {
	m := startMember(t)
	ages := []*uint64{proto.Uint64(5), proto.Uint64(9), proto.Uint64(7)}
	m.onUnary(func(_ context.Context, _ string, request proto.Message) (proto.Message, error) {
		page := 0
		next := func(token string) string {
			page, _ = strconv.Atoi(token)
			if page == 2 {
				return ""
			}
			return strconv.Itoa(page + 1)
		}
		switch r := request.(type) {
		case *metasrvpb.ListTablesRequest:
			resp := &metasrvpb.ListTablesResponse{NextPageToken: next(r.GetPageToken())}
			resp.Header = &metasrvpb.ResponseHeader{AgeMs: ages[page]}
			for i := range r.GetLimit() {
				if page != 1 { // a page may be empty and still not be the last
					resp.Tables = append(resp.Tables, &metasrvpb.Table{Id: uint64(page)*10 + uint64(i)})
				}
			}
			return resp, nil
		case *metasrvpb.ListRegionsRequest:
			resp := &metasrvpb.ListRegionsResponse{NextPageToken: next(r.GetPageToken())}
			resp.Regions = append(resp.Regions, &metasrvpb.RegionInfo{RegionId: uint64(page)})
			return resp, nil
		}
		t.Errorf("unexpected %T", request)
		return nil, nil
	})
	c := dial(t, nil, m.addr)
	req := &metasrvpb.ListTablesRequest{Limit: 2}
	tables, err := c.ListTables(t.Context(), req)
	if err != nil || len(tables.GetTables()) != 4 || tables.GetTables()[2].GetId() != 20 || tables.GetHeader().GetAgeMs() != 9 {
		t.Errorf("tables %v, %v", tables, err)
	}
	if req.PageToken != "" {
		t.Error("the request was changed")
	}
	regions, err := c.ListRegions(t.Context(), &metasrvpb.ListRegionsRequest{})
	if err != nil || len(regions.GetRegions()) != 3 {
		t.Errorf("regions %v, %v", regions, err)
	}
}
