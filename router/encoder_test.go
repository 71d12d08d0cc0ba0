package router_test

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// nodeRecords shows an Encoder the nodes of the fixture: the address of one is another after each registration.
func nodeRecords() router.NodeRecords {
	return router.NodeRecords{
		Value: func(v state.View, id metasrv.NodeID) []byte {
			value, _ := v.Get(nodeKey(uint64(id)))
			return value
		},
		Address: func(value []byte) string {
			node := &storagepb.NodeRecord{}
			if err := state.Decode(value, node); err != nil {
				panic(err)
			}
			return fmt.Sprintf("node.%d:4001", node.Incarnation)
		},
	}
}

// plain returns what Encode must, by a Builder.
func plain(v state.View, names []*metasrvpb.TableName, ids []uint64) ([]byte, error) {
	nodes := nodeRecords()
	b := router.NewBuilder(func(id metasrv.NodeID) string {
		if value := nodes.Value(v, id); value != nil {
			return nodes.Address(value)
		}
		return ""
	})
	resp := &metasrvpb.RouteResponse{}
	for _, name := range names {
		record, err := router.Find(v, catalog.NameOf(name))
		if err != nil {
			return nil, err
		}
		resp.TableRoutes = append(resp.TableRoutes, b.Add(record))
	}
	for _, id := range ids {
		record, err := router.Get(v, metasrv.TableID(id))
		if err != nil {
			return nil, err
		}
		resp.TableRoutes = append(resp.TableRoutes, b.Add(record))
	}
	resp.Peers = b.Peers()
	return state.Encode(resp), nil
}

// Whatever happens to tables and nodes, and whichever state is asked, what an Encoder keeps answers as that state does.
func TestEncoderAnswersAsTheStateDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := clusterFor(t)
		e := router.NewEncoder(nodeRecords(), rapid.SampledFrom([]int{0, 4 << 10, 1 << 20}).Draw(t, "bytes"))
		views := []state.View{c.View()}
		change := func(f func(*rapid.T)) func(*rapid.T) {
			return func(t *rapid.T) {
				f(t)
				views = append(views, c.View())
			}
		}
		try := func(kind storagepb.CommandKind, payload func(*rapid.T) *storagepb.DropTable) func(*rapid.T) {
			return change(func(t *rapid.T) { _, _ = c.propose(kind, payload(t)) })
		}
		t.Repeat(map[string]func(*rapid.T){
			"create": change(func(t *rapid.T) {
				on := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 4), 1, 3, rapid.ID).Draw(t, "on")
				cmd := c.plan(fewNames(t), rapid.IntRange(1, 4).Draw(t, "regions"), on...)
				cmd.Commit = rapid.IntRange(0, 3).Draw(t, "commit") > 0
				_, _ = c.propose(createTable, cmd)
			}),
			"drop": try(dropTable, func(t *rapid.T) *storagepb.DropTable { return dropOf(fewNames(t)) }),
			"rename": change(func(t *rapid.T) {
				_, _ = c.propose(renameTable, &storagepb.RenameTable{Name: tableName(fewNames(t)), NewTableName: fewNames(t)})
			}),
			"register":   change(func(t *rapid.T) { c.register(rapid.Uint64Range(1, 4).Draw(t, "node")) }),
			"unregister": change(func(t *rapid.T) { c.unregister(rapid.Uint64Range(1, 4).Draw(t, "node")) }),
			"": func(t *rapid.T) {
				v := views[len(views)-1-rapid.IntRange(0, min(3, len(views)-1)).Draw(t, "ago")]
				names := rapid.SliceOfN(rapid.Map(rapid.Custom(fewNames), tableName), 0, 3).Draw(t, "names")
				ids := rapid.SliceOfN(rapid.Uint64Range(1024, 1030), 0, 3).Draw(t, "ids")
				got, gotErr := e.Encode(v, names, ids)
				want, wantErr := plain(v, names, ids)
				if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !bytes.Equal(got, want) {
					t.Fatalf("Encode(%v, %v) = %x, %v\nwant %x, %v", names, ids, got, gotErr, want, wantErr)
				}
			},
		})
	})
}

func fewNames(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name") }

// BenchmarkEncode asks for the routes of 100 tables of 10 regions on 10 nodes, with nothing changing meanwhile.
func BenchmarkEncode(b *testing.B) {
	c := clusterFor(b)
	for id := range uint64(10) {
		c.register(id + 1)
	}
	var names []*metasrvpb.TableName
	for i := range 100 {
		cmd := c.plan(fmt.Sprintf("t%d", i), 10, uint64(i%10)+1, uint64(i+1)%10+1, uint64(i+5)%10+1)
		cmd.Commit = true
		names = append(names, c.must(createTable, cmd).Table.Name)
	}
	e := router.NewEncoder(nodeRecords(), 1<<20)
	view := c.View()
	for name, v := range map[string]func() state.View{
		"same state":    func() state.View { return view },
		"another state": func() state.View { c.register(99); return c.View() },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Encode(v(), names, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
