package router_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/router"
)

func TestDropFreesTheNameAtOnce(t *testing.T) {
	c := newCluster(t)
	first := c.public("t", 2, 1, 2)
	dropped := c.must(dropTable, dropOf("t"))
	if dropped.Table.State != dropping {
		t.Errorf("state = %s, want DROPPING", dropped.Table.State)
	}
	if diff := cmp.Diff(first.Route, dropped.Route, protocmp.Transform()); diff != "" {
		t.Errorf("the answer is not the last route: %s", diff)
	}
	if _, err := router.Find(c.View(), named("t")); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("Find = %v, want %v", err, metasrv.ErrTableNotFound)
	}
	if _, err := router.Get(c.View(), 1024); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("Get = %v, want %v", err, metasrv.ErrTableNotFound)
	}
	if second := c.public("t", 2, 1, 2); second.Table.Id == first.Table.Id {
		t.Errorf("id %d was used twice", first.Table.Id)
	}
}

func TestDropRefusals(t *testing.T) {
	c := newCluster(t)
	c.create("creating", 1, 1)
	c.must(abortTable, abortOf(c.create("aborted", 1, 1)))
	c.public("dropped", 1, 1)
	c.must(dropTable, dropOf("dropped"))
	for _, name := range []string{"unknown", "creating", "aborted", "dropped"} {
		c.refuse(metasrv.ErrTableNotFound, dropTable, dropOf(name))
	}
	schemaless := dropOf("t")
	schemaless.Name.SchemaName = "x"
	c.refuse(metasrv.ErrSchemaNotFound, dropTable, schemaless)
}

func TestLastConfirmationForgetsTheTable(t *testing.T) {
	c := newCluster(t)
	for name, retire := range map[string]func() router.Record{
		"aborted": func() router.Record { return c.must(abortTable, abortOf(c.create("t", 2, 1, 2, 3))) },
		"dropped": func() router.Record { c.public("t", 2, 1, 2, 3); return c.must(dropTable, dropOf("t")) },
	} {
		r := retire()
		id := metasrv.TableID(r.Table.Id)
		c.must(confirmDropped, c.confirmOf(r, 1))
		before := c.View().Revision()
		c.must(confirmDropped, c.confirmOf(r, 1))
		if after := c.View().Revision(); after != before {
			t.Errorf("%s: a repeated confirmation changed the state", name)
		}
		c.must(confirmDropped, c.confirmOf(r, 2))
		if _, err := catalog.GetTable(c.View(), id); err != nil {
			t.Errorf("%s: forgotten before node 3 confirmed: %v", name, err)
		}
		c.must(confirmDropped, c.confirmOf(r, 3))
		if _, err := catalog.GetTable(c.View(), id); !errors.Is(err, metasrv.ErrTableNotFound) {
			t.Errorf("%s: table = %v, want %v", name, err, metasrv.ErrTableNotFound)
		}
		if _, err := router.Route(c.View(), id); !errors.Is(err, metasrv.ErrTableNotFound) {
			t.Errorf("%s: route = %v, want %v", name, err, metasrv.ErrTableNotFound)
		}
		for table, err := range catalog.Pending(c.View()) {
			t.Errorf("%s: pending = %v, %v", name, table, err)
		}
		c.must(confirmDropped, c.confirmOf(r, 3))
	}
}

// What a confirmation names wrongly, or what is still wanted, stays.
func TestConfirmIgnores(t *testing.T) {
	c := newCluster(t)
	wanted := c.public("public", 1, 1)
	created := c.create("creating", 1, 1)
	dropped := c.public("dropped", 1, 1, 2)
	c.must(dropTable, dropOf("dropped"))
	before := c.View().Revision()

	replica := func(r router.Record, i int) *storagepb.DroppedReplica {
		region := r.Route.Regions[0]
		return &storagepb.DroppedReplica{RegionId: region.RegionId, ReplicaId: region.Replicas[i].ReplicaId}
	}
	wrongRegion := replica(dropped, 0)
	wrongRegion.RegionId++
	wrongReplica := replica(dropped, 0)
	wrongReplica.ReplicaId += 50
	c.must(confirmDropped, &storagepb.ConfirmDropped{NodeId: 1, Incarnation: c.incarnation(1), Replicas: []*storagepb.DroppedReplica{
		replica(wanted, 0), replica(created, 0), replica(dropped, 1), wrongRegion, wrongReplica, {RegionId: 9, ReplicaId: 9},
	}})
	if after := c.View().Revision(); after != before {
		t.Error("the state changed")
	}
}

// Rule 23: what an older process of the node reported says nothing about the present one.
func TestConfirmNeedsThePresentIncarnation(t *testing.T) {
	c := newCluster(t)
	c.public("t", 1, 1)
	r := c.must(dropTable, dropOf("t"))
	old := c.confirmOf(r, 1)
	c.register(1)
	c.refuse(metasrv.ErrStaleIncarnation, confirmDropped, old)
	c.unregister(1)
	c.refuse(metasrv.ErrNodeNotFound, confirmDropped, old)
	c.register(1)
	c.must(confirmDropped, c.confirmOf(r, 1))
}

// A removed node confirms nothing any more, so nobody waits for it.
func TestRemovedNodesCountAsConfirmed(t *testing.T) {
	for name, retire := range map[string]func(c *cluster) router.Record{
		"dropped": func(c *cluster) router.Record {
			c.public("t", 1, 1, 2)
			c.unregister(2)
			return c.must(dropTable, dropOf("t"))
		},
		"aborted": func(c *cluster) router.Record {
			r := c.create("t", 1, 1, 2)
			c.unregister(2)
			return c.must(abortTable, abortOf(r))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			r := retire(c)
			if _, err := router.Route(c.View(), metasrv.TableID(r.Table.Id)); err != nil {
				t.Fatalf("forgotten before node 1 confirmed: %v", err)
			}
			c.must(confirmDropped, c.confirmOf(r, 1))
			if _, err := router.Route(c.View(), metasrv.TableID(r.Table.Id)); !errors.Is(err, metasrv.ErrTableNotFound) {
				t.Errorf("when node 1 has confirmed: %v", err)
			}
		})
	}
}
