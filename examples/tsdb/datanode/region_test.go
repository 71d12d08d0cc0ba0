package datanode

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// unregistered stands for heartbeats that nobody hears.
type unregistered struct{}

func (unregistered) Incarnation() uint64                  { return 1 }
func (unregistered) Beat()                                {}
func (unregistered) ChangeInSync(*metasrvpb.InSyncChange) {}

// newTestService returns a service with an empty folder, which keeps one file open at a time.
func newTestService(t *testing.T) *Service {
	t.Helper()
	folder, err := store.Open(t.Context(), store.Config{Folder: t.TempDir(), NodeID: 1, MaxOpen: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewService(ServiceConfig{
		Node: 1, Store: folder, Registration: unregistered{}, Keeper: client.NewRegionKeeper(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), folder.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

var (
	testRegion = metasrv.NewRegionID(1024, 0)
	testTable  = &metasrvpb.Table{
		TableName: &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: "t"},
		Schema: &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{
			{Name: "text", Type: metasrvpb.DataType_DATA_TYPE_STRING},
		}},
	}
)

// newLedRegion returns a region whose replica here, 10, leads in epoch 3.
func newLedRegion(t *testing.T) *region {
	t.Helper()
	s := newTestService(t)
	r, err := s.store.Create(t.Context(), &tsdbpb.CreateRegionRequest{
		Route:       &tsdbpb.Route{RegionId: uint64(testRegion), ReplicaId: 10, LeaderEpoch: 3},
		ConfVersion: 1, Role: leaderRole, TableName: testTable.GetTableName(), Schema: testTable.GetSchema(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.region(r)
}

// TestLeadsByTheLatestState: who was told to lead, and is late with it, leads in the epoch that the replica has by then.
func TestLeadsByTheLatestState(t *testing.T) {
	g := newLedRegion(t)
	g.lead()
	g.mu.Lock() // whoever leads waits here, while the replica gets another epoch
	led := make(chan struct{})
	go func() {
		defer close(led)
		g.lead()
	}()
	for range 20 { // each waits for the disk, which lets the other one get to where it waits
		err := g.replica.Change(t.Context(), func(s *store.State) error {
			s.LeaderEpoch++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	g.mu.Unlock()
	<-led
	if l := g.leadership(); l.epoch != 23 {
		t.Errorf("leads in epoch %d, want 23", l.epoch)
	}
}

// TestAbandonedWrites: writes whose callers no longer wait are not stored by the next group.
func TestAbandonedWrites(t *testing.T) {
	g := newLedRegion(t)
	gone, leave := context.WithCancel(t.Context())
	leave()
	for id, ctx := range map[string]context.Context{"waits": t.Context(), "gone": gone, "gone too": gone} {
		g.waiting = append(g.waiting, &pendingWrite{left: ctx.Done(), write: store.Write{ID: []byte(id)}})
	}
	if group := g.next(); len(group) != 1 || string(group[0].write.ID) != "waits" {
		t.Errorf("%d writes are stored, want the one that somebody waits for", len(group))
	}
	g.waiting = append(g.waiting, &pendingWrite{left: gone.Done()})
	if group := g.next(); len(group) != 0 || len(g.waiting) != 0 || g.running {
		t.Errorf("%d writes are stored, %d wait, running: %t; want none", len(group), len(g.waiting), g.running)
	}
}

// TestHeldLogIsLetGo: what a leader holds of the log for a copy is let go when it leads no more, and nothing is held anew by a
// copy that ends after that.
func TestHeldLogIsLetGo(t *testing.T) {
	g := newLedRegion(t)
	g.lead()
	l := g.leadership()
	f := newFollower(l, 11)
	hold := func(want uint64) {
		t.Helper()
		l.mu.Lock()
		l.followers[f.id], f.holds = f, 5
		l.hold()
		l.mu.Unlock()
		if held := g.replica.Held(); held != want {
			t.Errorf("the log is held from place %d on, want %d", held, want)
		}
	}
	hold(5)
	g.stopLeading(l.epoch+1, errHandedOver(g))
	if held := g.replica.Held(); held != 0 {
		t.Errorf("the log is still held from place %d on", held)
	}
	hold(0)
}
