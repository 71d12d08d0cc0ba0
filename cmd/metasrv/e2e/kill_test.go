package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/client/clienttest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// created collects the tables that were acknowledged to frontends.
type created struct {
	mu     sync.Mutex
	tables map[string]*metasrvpb.Table
}

// The metasrv leader is killed again and again while tables are created: each acknowledged table is there with all
// its regions, none is there by half, and no id was given twice.
func TestLeaderKilledWhileTablesAreCreated(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	nodes := c.datanodes(cl, 3)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	acknowledged := &created{tables: map[string]*metasrvpb.Table{}}
	ctx, stop := context.WithCancel(t.Context())
	var frontends sync.WaitGroup
	for f := range 6 {
		frontends.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				createOne(ctx, t, cl, nodes, fmt.Sprintf("table_%d_%d", f, i), acknowledged)
			}
		})
	}
	for range 3 {
		time.Sleep(time.Duration(200+random.IntN(800)) * time.Millisecond) // load between two kills
		leader := c.leader()
		c.kill(leader)
		c.leader()
		c.start(leader)
	}
	count := func() int {
		acknowledged.mu.Lock()
		defer acknowledged.mu.Unlock()
		return len(acknowledged.tables)
	}
	before := count()
	eventually(t, "tables are created after the last kill", func() bool { return count() > before+5 })
	stop()
	frontends.Wait()
	t.Logf("%d tables were acknowledged", count())
	checkTables(t, cl, acknowledged.tables)
}

func createOne(ctx context.Context, t *testing.T, cl *client.Client, nodes map[uint64]*clienttest.Datanode, name string, to *created) {
	request := clienttest.HashTable(name, 3, 2)
	request.CreationTimeoutMs = 3000
	table, err := clienttest.CreateTable(ctx, cl, nodes, request)
	switch {
	case err == nil:
		to.mu.Lock()
		defer to.mu.Unlock()
		to.tables[name] = table
	case ctx.Err() != nil, errors.Is(err, metasrv.ErrOutcomeUnknown), errors.Is(err, metasrv.ErrCreationEnded):
		// A refusal is no promise.
	default:
		t.Errorf("table %s: %v", name, err)
	}
}

// checkTables compares what is there with what was acknowledged, once every creation has ended.
func checkTables(t *testing.T, cl *client.Client, acknowledged map[string]*metasrvpb.Table) {
	t.Helper()
	var tables []*metasrvpb.Table
	eventually(t, "no creation is under way", func() bool {
		answer, err := cl.Catalog().ListTables(t.Context(), &metasrvpb.ListTablesRequest{AllStates: true})
		if err != nil {
			return false
		}
		tables = answer.Tables
		for _, table := range tables {
			if table.State != metasrvpb.TableState_TABLE_STATE_PUBLIC {
				return false
			}
		}
		return true
	})
	ids, found := map[uint64]string{}, map[string]*metasrvpb.Table{}
	for _, table := range tables {
		if other, twice := ids[table.Id]; twice {
			t.Errorf("tables %s and %s have the same id %d", other, table.TableName.TableName, table.Id)
		}
		ids[table.Id] = table.TableName.TableName
		found[table.TableName.TableName] = table
	}
	regions := map[uint64]bool{}
	for name, want := range acknowledged {
		if got := found[name]; got == nil || got.Id != want.Id {
			t.Errorf("table %s was acknowledged with id %d, there is %v", name, want.Id, got)
			continue
		}
		answer, err := cl.Router().Route(t.Context(), &metasrvpb.RouteRequest{TableNames: []*metasrvpb.TableName{clienttest.TableName(name)}})
		if err != nil {
			t.Errorf("route of %s: %v", name, err)
			continue
		}
		checkRoute(t, name, answer.TableRoutes[0], regions)
	}
}

func checkRoute(t *testing.T, name string, route *metasrvpb.TableRoute, seen map[uint64]bool) {
	t.Helper()
	if len(route.RegionRoutes) != 3 {
		t.Errorf("table %s has %d regions, want 3", name, len(route.RegionRoutes))
	}
	for _, r := range route.RegionRoutes {
		if len(r.FollowerPeerIndexes) != 1 || r.LeaderReplicaId == 0 {
			t.Errorf("region %d of %s: %v", r.Region.Id, name, r)
		}
		for _, id := range append([]uint64{r.LeaderReplicaId}, r.FollowerReplicaIds...) {
			if seen[id] {
				t.Errorf("replica id %d was given twice", id)
			}
			seen[id] = true
		}
	}
}

// A frontend that did not hear the answer asks the next metasrv leader under the same request id, and gets the first
// result.
func TestRetryAcrossLeadersReturnsTheFirstResult(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	nodes := c.datanodes(cl, 2)
	session, err := cl.Cluster().OpenSession(t.Context(), &metasrvpb.OpenSessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	request := clienttest.HashTable("once", 4, 2)
	request.Header = &metasrvpb.RequestHeader{RequestId: &metasrvpb.RequestId{Session: session.Session, Sequence: 1}}
	old := c.leader()
	first, err := metasrvpb.NewRouterClient(old.conn).Create(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	c.kill(old)
	second, err := cl.Router().Create(t.Context(), proto.CloneOf(request))
	if err != nil {
		t.Fatal(err)
	}
	a, b := first.TableRoutes[0], second.TableRoutes[0]
	if a.Table.Id != b.Table.Id || a.CreationToken != b.CreationToken || !proto.Equal(a.RegionRoutes[3], b.RegionRoutes[3]) {
		t.Errorf("the retry returned\n%v\nwant\n%v", b, a)
	}
	commit, err := clienttest.CreateReplicas(second, nodes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Catalog().CommitTable(t.Context(), commit); err != nil {
		t.Fatal(err)
	}
	checkTables(t, cl, map[string]*metasrvpb.Table{})
}

// All members are killed at once; what was acknowledged is there when they are back, and ids go on rising.
func TestRestartOfAllMembers(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	nodes := c.datanodes(cl, 3)
	var last *metasrvpb.Table
	for i := range 5 {
		table, err := clienttest.CreateTable(t.Context(), cl, nodes, clienttest.HashTable(fmt.Sprintf("before_%d", i), 3, 2))
		if err != nil {
			t.Fatal(err)
		}
		last = table
	}
	if _, err := cl.Store().Put(t.Context(), &metasrvpb.PutRequest{Key: []byte("key"), Value: []byte("value")}); err != nil {
		t.Fatal(err)
	}
	incarnation := nodes[1].Incarnation()
	for _, m := range c.members {
		c.kill(m)
	}
	for _, m := range c.members {
		c.start(m)
	}
	value, err := cl.Store().Range(t.Context(), &metasrvpb.RangeRequest{Key: []byte("key")})
	if err != nil || len(value.Kvs) != 1 || string(value.Kvs[0].Value) != "value" {
		t.Errorf("key is %v, %v", value, err)
	}
	table, err := clienttest.CreateTable(t.Context(), cl, nodes, clienttest.HashTable("after", 3, 2))
	if err != nil {
		t.Fatal(err)
	}
	if table.Id <= last.Id {
		t.Errorf("id %d was given after %d", table.Id, last.Id)
	}
	if now := nodes[1].Incarnation(); now != incarnation {
		t.Errorf("a datanode that went on got incarnation %d, it had %d", now, incarnation)
	}
	answer, err := cl.Catalog().ListTables(t.Context(), &metasrvpb.ListTablesRequest{})
	if err != nil || len(answer.Tables) != 6 {
		t.Errorf("%d tables, want 6: %v", len(answer.GetTables()), err)
	}
}

// A watch that its client resumes across a leader change shows each change once, in order.
func TestRouteWatchAcrossALeaderChange(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	nodes := c.datanodes(cl, 2)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	watched := make(chan *metasrvpb.WatchRoutesResponse, 1000)
	var watcher sync.WaitGroup
	watcher.Go(func() { watchRoutes(ctx, cl, watched) })
	create := func(name string) {
		if _, err := clienttest.CreateTable(ctx, cl, nodes, clienttest.HashTable(name, 2, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		create(fmt.Sprintf("before_%d", i))
	}
	old := c.leader()
	c.kill(old)
	for i := range 5 {
		create(fmt.Sprintf("after_%d", i))
	}
	c.start(old)
	if _, err := cl.Router().Delete(ctx, &metasrvpb.DeleteRequest{TableName: clienttest.TableName("before_0")}); err != nil {
		t.Fatal(err)
	}
	updated, removed, last := map[string]int{}, map[string]int{}, uint64(0)
	for len(removed) == 0 {
		select {
		case r := <-watched:
			for _, e := range r.Events {
				if e.Revision < last {
					t.Errorf("revision %d came after %d", e.Revision, last)
				}
				last = e.Revision
				if u := e.GetUpdated(); u != nil {
					updated[u.Table.TableName.TableName]++
				} else {
					removed[e.GetRemoved().TableName.TableName]++
				}
			}
		case <-time.After(waitLimit):
			t.Fatalf("watched %v, %v only", updated, removed)
		}
	}
	stop()
	watcher.Wait()
	for i := range 5 {
		for _, name := range []string{fmt.Sprintf("before_%d", i), fmt.Sprintf("after_%d", i)} {
			if updated[name] != 1 {
				t.Errorf("table %s was announced %d times, want once", name, updated[name])
			}
		}
	}
	if removed["before_0"] != 1 || len(removed) != 1 {
		t.Errorf("removed %v, want before_0 once", removed)
	}
}

// watchRoutes follows the routes from the first revision on, and resumes where a stream breaks.
func watchRoutes(ctx context.Context, cl *client.Client, to chan<- *metasrvpb.WatchRoutesResponse) {
	next := uint64(1)
	for ctx.Err() == nil {
		stream, err := cl.Router().Watch(ctx, &metasrvpb.WatchRoutesRequest{StartRevision: next})
		if err != nil {
			continue
		}
		for {
			r, err := stream.Recv()
			if err != nil {
				break
			}
			next = r.Revision + 1
			to <- r
		}
	}
}
