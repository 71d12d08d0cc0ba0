package server

import (
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

// stuckCluster has two nodes that failed together, with regions that only they have, and failover to be driven by hand.
type stuckCluster struct {
	*keeperCluster
	f *failover
}

func startStuck(t *testing.T) *stuckCluster {
	t.Helper()
	c := &stuckCluster{keeperCluster: startKeepers(t, 2)}
	c.configure(&metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_BeginMaintenance{
		BeginMaintenance: &metasrvpb.MaintenanceMode{Reason: "a test"},
	}})
	for i := range 4 {
		c.table("t"+strconv.Itoa(i), func(r *metasrvpb.CreateRequest) { r.PartitionRule, r.Replicas = hashRule([]string{"host"}, 2), 2 })
	}
	c.nodes[1].kill()
	c.nodes[2].kill()
	term := c.services.term.Load()
	eventually(t, "both have failed", func() bool { failed, _ := term.tracker.Failed(time.Now()); return len(failed) == 2 })
	c.f = newFailover(c.duties, term, slog.New(slog.DiscardHandler))
	if err := c.f.led.advance(t.Context(), c.Server.Node().View()); err != nil {
		t.Fatal(err)
	}
	return c
}

// look looks at node 1 if it is due, and says whether it was, and whether it has to be looked at further.
func (c *stuckCluster) look(now time.Time, failed ...metasrv.NodeID) (due, more bool) {
	c.t.Helper()
	if !slices.Contains(c.f.due(failed, now), 1) {
		return false, false
	}
	p, err := c.f.plan(c.t.Context(), c.Server.Node().View(), now)
	if err != nil {
		c.t.Fatal(err)
	}
	c.f.planned = 0
	if more, err = c.f.replaceLeaders(c.t.Context(), p, 1); err != nil {
		c.t.Fatal(err)
	}
	return true, more
}

// A look ends when it has planned for as long as one may, and the next goes on where it ended.
func TestLookAtANodeIsBounded(t *testing.T) {
	c := startStuck(t)
	c.f.lookTime = 1 // a table takes longer
	now, looks := time.Now(), 1
	for {
		due, more := c.look(now, 1, 2)
		if !due {
			t.Fatal("the node is not looked at further")
		}
		if !more {
			break
		}
		looks++
	}
	if tables := len(c.f.led.nodes[1]); looks != tables || tables < 2 {
		t.Errorf("%d looks at %d tables, want one a table", looks, tables)
	}
	stuck := 0
	for _, n := range c.f.known[1].stuck {
		stuck += n
	}
	if led := c.f.led.count(1); stuck != led {
		t.Errorf("%d regions can't be led, want all %d", stuck, led)
	}
	if due, _ := c.look(now, 1, 2); due {
		t.Error("it is looked at again at once")
	}
}

// Regions that nobody can lead are looked at less and less, until something changes that may help.
func TestStuckRegionsAreLookedAtSeldom(t *testing.T) {
	c := startStuck(t)
	now := time.Now()
	due := func() bool { due, _ := c.look(now, 1, 2); return due }
	grow := func(pauses ...time.Duration) {
		t.Helper()
		for _, pause := range pauses {
			if got := c.f.known[1].pause; got != pause*time.Second {
				t.Fatalf("the pause is %s, want %d s", got, pause)
			}
			if now = now.Add(pause*time.Second - 1); due() {
				t.Fatalf("it is looked at again within a pause of %d s", pause)
			}
			if now = now.Add(1); !due() {
				t.Fatalf("it is not looked at again after a pause of %d s", pause)
			}
		}
	}
	if !due() {
		t.Fatal("it is not looked at")
	}
	grow(1, 2, 4, 8, 16, 30, 30)

	now = now.Add(stuckPeriod)
	if due, _ := c.look(now, 1); !due {
		t.Error("node 2 came back, and nobody looks whether it can lead what node 1 led")
	}
	c.look(now, 1, 2)
	grow(2, 4)

	view := c.Server.Node().View()
	for key, route := range view.Ascend(router.RoutePrefix, router.RouteStop) {
		table, err := router.TableOfRoute(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.f.led.set(table, route); err != nil {
			t.Fatal(err)
		}
	}
	if now = now.Add(stuckPeriod); !due() {
		t.Error("a route changed, and nobody looks whether that helps")
	}

	c.look(now, 2)
	if _, known := c.f.known[1]; known {
		t.Error("the node is back, and taken for failed")
	}
}

// A node that is heard but has not reported its replicas yet may lead them any moment: the pause doesn't grow.
func TestRegionsThatWaitForAReportAreLookedAtOften(t *testing.T) {
	c := startStuck(t)
	c.nodes[2].restart(func(*metasrvpb.NodeInfo) {})
	term := c.services.term.Load()
	eventually(t, "node 2 is heard", func() bool { return !term.tracker.HasFailed(2, time.Now()) })
	hopeful := &nodeLook{waitsFor: map[metasrv.NodeID]struct{}{}}
	p, err := c.f.plan(t.Context(), c.Server.Node().View(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for table := range c.f.led.nodes[1] {
		record, err := router.Get(p.view, table)
		if err != nil {
			t.Fatal(err)
		}
		for _, region := range record.Route.GetRegions() {
			if leaderNode(region) == 1 {
				hopeful.wait(p, record.Route, region)
			}
		}
	}
	k := &failedNode{pause: 8 * time.Second, look: hopeful}
	if c.f.looked(k, 1, time.Now()); k.pause != stuckPeriod || len(k.waitsFor) > 0 {
		t.Errorf("the next look is in %s and waits for %v", k.pause, k.waitsFor)
	}
}

// Who leads regions only of tables that are being dropped has nothing to be taken over: it counts neither as failed nor for the
// storm limit, whether the table was dropped while it was counted or before.
func TestTablesThatAreDroppedAreNotLed(t *testing.T) {
	c := startStuck(t)
	tables := len(c.f.led.nodes[1])
	if tables == 0 || !c.f.led.leads(1) {
		t.Fatalf("led are %v", c.f.led.nodes)
	}
	for i := range 4 {
		if _, err := c.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("t" + strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	view := c.Server.Node().View()
	if err := c.f.led.advance(t.Context(), view); err != nil {
		t.Fatal(err)
	}
	counted := ledTables{source: c.node}
	if err := counted.recount(view); err != nil {
		t.Fatal(err)
	}
	for name, led := range map[string]*ledTables{"followed": &c.f.led, "counted": &counted} {
		if led.leads(1) || led.leads(2) || led.count(1) != 0 || len(led.counted) != 0 {
			t.Errorf("%s: led are %v, %v", name, led.nodes, led.sums)
		}
	}
	eventually(t, "no failed node leads a region", func() bool { return len(c.failoverStatus().GetFailedNodeIds()) == 0 })
}
