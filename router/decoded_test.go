package router_test

import (
	"errors"
	"testing"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/router"
)

// A table is decoded anew when it has changed, and only then.
func TestDecoded(t *testing.T) {
	c := clusterFor(t)
	id := metasrv.RegionID(threeReplicas(c, "t").RegionId)
	var kept router.Decoded
	get := func() *storagepb.RouteRecord {
		t.Helper()
		r, err := kept.Get(c.View(), id.Table())
		if err != nil {
			t.Fatal(err)
		}
		return r.Route
	}
	first := get()
	threeReplicas(c, "other") // leaves it as it is
	if again := get(); again != first {
		t.Error("a route that is the same was decoded again")
	}
	c.change(to(c.region(id), &storagepb.BeginDemotion{}))
	changed := get()
	if changed == first || !changed.Regions[0].Demoting {
		t.Errorf("after a change the route is %v", changed)
	}
	kept.Keep(func(table metasrv.TableID) bool { return table != id.Table() })
	if again := get(); again == changed {
		t.Error("it was to be forgotten")
	}
	if _, err := kept.Get(c.View(), 999_999); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("no table: %v", err)
	}
	c.must(dropTable, dropOf("t"))
	if r, err := kept.Get(c.View(), id.Table()); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("a table that is being dropped: %v, %v", r, err)
	}
}
