package server

import (
	"fmt"
	"slices"
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Pages hold, one behind the other, what one answer would: each thing once.
func TestPages(t *testing.T) {
	m := startLeader(t)
	a, b := m.addDatanode(t, 1), m.addDatanode(t, 2)
	for i := range 5 {
		m.createTable(t, fmt.Sprintf("t%d", 9-i), a, b)
	}
	if _, err := m.router().Create(timeout(t), createRequest("creating")); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []uint32{1, 2, 5, 100} {
		var tables, regions []uint64
		for req := (&metasrvpb.ListTablesRequest{Limit: limit}); ; {
			resp, err := m.catalog().ListTables(timeout(t), req)
			if err != nil || len(resp.GetTables()) > int(limit) {
				t.Fatalf("%d tables on a page of %d, %v", len(resp.GetTables()), limit, err)
			}
			for _, table := range resp.GetTables() {
				tables = append(tables, table.GetId())
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		for req := (&metasrvpb.ListRegionsRequest{Limit: limit}); ; {
			resp, err := m.cluster().ListRegions(timeout(t), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, region := range resp.GetRegions() {
				regions = append(regions, region.GetRegionId())
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		if len(tables) != 5 || !slices.IsSorted(tables) || len(slices.Compact(tables)) != 5 {
			t.Errorf("limit %d: tables %v", limit, tables)
		}
		if len(regions) != 18 || !slices.IsSorted(regions) || len(slices.Compact(regions)) != 18 {
			t.Errorf("limit %d: regions %v", limit, regions)
		}
	}
	_, err := m.catalog().ListTables(timeout(t), &metasrvpb.ListTablesRequest{PageToken: "x"})
	wantRefusal(t, err, invalid("page_token"))
}
