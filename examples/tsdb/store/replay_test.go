package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const followerRole = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER

func createFollower(t *testing.T, schema *metasrvpb.TableSchema) *store.Replica {
	t.Helper()
	d := definition(schema)
	d.Role = followerRole
	return create(t, open(t, t.TempDir()), d)
}

// lead has a replica lead in an epoch, from its last write on.
func lead(t *testing.T, r *store.Replica, epoch uint64) {
	t.Helper()
	if err := r.Change(t.Context(), func(s *store.State) error {
		s.LeaderEpoch, s.EpochStart, s.Role = epoch, s.StoredSeq, metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func number(i int) []any { return []any{int64(i), nil, nil, nil, nil, nil, nil} }

// tail returns the leader's log from a place on, at most n records of it.
func tail(t *testing.T, leader *store.Replica, first uint64, n int) store.Tail {
	t.Helper()
	records, previous, err := leader.Log(t.Context(), first, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	s := leader.State()
	return store.Tail{Epoch: s.LeaderEpoch, EpochStart: s.EpochStart, Previous: previous, Records: records[:min(n, len(records))]}
}

// TestReplay stores records in order, skips those that are there, and refuses gaps and old epochs.
func TestReplay(t *testing.T) {
	leader := create(t, open(t, t.TempDir()), definition(everyType()))
	follower := createFollower(t, everyType())
	for i := range 5 {
		write(t, leader, fmt.Sprint(i), rowsOf(t, everyType(), number(i)))
	}
	newer := func(part store.Tail) store.Tail { part.Epoch, part.EpochStart = 3, 5; return part }
	older := func(part store.Tail) store.Tail { part.Epoch = 1; return part }
	for i, step := range []struct {
		part    store.Tail
		matched bool
		hint    store.Position
		stored  uint64
		err     error
	}{
		{part: tail(t, leader, 1, 2), matched: true, stored: 2},
		{part: tail(t, leader, 1, 2), matched: true, stored: 2},
		{part: tail(t, leader, 5, 1), hint: store.Position{Epoch: 2, Seq: 2}, stored: 2},
		{part: older(tail(t, leader, 3, 1)), err: store.ErrStaleEpoch, stored: 2},
		{part: tail(t, leader, 3, 0), matched: true, stored: 2},
		{part: newer(tail(t, leader, 3, 0)), matched: true, stored: 2},
		{part: tail(t, leader, 3, 1), err: store.ErrStaleEpoch, stored: 2},
		{part: newer(tail(t, leader, 2, 3)), matched: true, stored: 4},
	} {
		matched, hint, err := follower.Replay(t.Context(), step.part)
		if matched != step.matched || hint != step.hint || !errors.Is(err, step.err) || follower.State().StoredSeq != step.stored {
			t.Errorf("step %d: matched %t, hint %v, stored %d, %v; want %+v", i, matched, hint, follower.State().StoredSeq, err, step)
		}
	}
	if got := query(t, follower, &tsdbpb.QueryRequest{}); len(got) != 4 {
		t.Errorf("%d rows, want 4", len(got))
	}
	if _, _, err := leader.Replay(t.Context(), tail(t, leader, 1, 1)); !errors.Is(err, store.ErrStaleEpoch) {
		t.Errorf("the leader of the epoch itself: %v, want ErrStaleEpoch", err)
	}
	if _, err := leader.Append(t.Context(), 3, nil, true, 0); !errors.Is(err, store.ErrStaleEpoch) {
		t.Errorf("append in another epoch: %v, want ErrStaleEpoch", err)
	}
	if _, err := follower.Append(t.Context(), 3, nil, true, 0); !errors.Is(err, store.ErrStaleEpoch) {
		t.Errorf("append on a follower: %v, want ErrStaleEpoch", err)
	}
}

// TestCommittedStays: what is committed is not taken back, whoever asks; and what isn't kept can't be.
func TestCommittedStays(t *testing.T) {
	leader := create(t, open(t, t.TempDir()), definition(keyed()))
	follower := createFollower(t, keyed())
	for i := range 3 {
		write(t, leader, fmt.Sprint(i), rowsOf(t, keyed(), []any{"a", int64(1), float64(i)}))
	}
	part := tail(t, leader, 1, 3)
	part.Committed = 2
	if matched, _, err := follower.Replay(t.Context(), part); !matched || err != nil {
		t.Fatal(matched, err)
	}
	for _, c := range []struct {
		start uint64
		err   error
		v     float64
	}{{start: 1, err: store.ErrDiverged, v: 2}, {start: 2, v: 1}} {
		_, _, err := follower.Replay(t.Context(), store.Tail{Epoch: 3, EpochStart: c.start, Previous: store.Position{Epoch: 2, Seq: c.start}})
		if !errors.Is(err, c.err) {
			t.Errorf("from %d on: %v, want %v", c.start, err, c.err)
		}
		if got := query(t, follower, &tsdbpb.QueryRequest{Columns: []string{"v"}}); len(got) != 1 || got[0][0] != c.v {
			t.Errorf("from %d on: %v, want %v", c.start, got, c.v)
		}
	}
	if _, err := leader.Append(t.Context(), 2, []store.Write{{ID: []byte("x"), Rows: rowsOf(t, keyed(), []any{"b", int64(1), 0.5})}}, false, 3); err != nil {
		t.Fatal(err)
	}
	if _, _, err := leader.Replay(t.Context(), store.Tail{Epoch: 3, EpochStart: 3, Previous: store.Position{Epoch: 2, Seq: 3}}); !errors.Is(err, store.ErrDiverged) {
		t.Errorf("a write that isn't kept: %v, want ErrDiverged", err)
	}
}

// logModel is what a replica is to have: writes in order, each with its epoch.
type logModel []modelWrite

type modelWrite struct {
	epoch uint64
	id    string
	rows  [][]any
}

// rows returns the rows that the model's writes leave.
func (m logModel) rows(keyed bool) [][]any {
	var out [][]any
	for _, w := range m {
		for _, row := range w.rows {
			at := -1
			if keyed {
				at = slices.IndexFunc(out, func(have []any) bool { return have[0] == row[0] && have[1] == row[1] })
			}
			if at >= 0 {
				out[at] = row
			} else {
				out = append(out, row)
			}
		}
	}
	slices.SortFunc(out, func(a, b []any) int { return slices.Compare([]byte(fmt.Sprint(a)), []byte(fmt.Sprint(b))) })
	return out
}

// TestLogsAgree: three replicas change their leader at random, with tails that only some have. However the logs diverged,
// each ends up with exactly the rows of the leader's log, also after a crash at any moment. The seed is printed.
func TestLogsAgree(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, schema := range []*metasrvpb.TableSchema{keyed(), {Columns: keyed().GetColumns(), TimeIndex: "t"}} {
		t.Run(fmt.Sprintf("key of %d columns", len(schema.GetPrimaryKey())), func(t *testing.T) {
			w := &logWorld{t: t, random: rand.New(rand.NewPCG(seed, 1)), schema: schema, epoch: 2} //nolint:gosec // a test
			for i := range 3 {
				w.folders = append(w.folders, t.TempDir())
				s := open(t, w.folders[i])
				d := definition(schema)
				if i > 0 {
					d.Role = followerRole
				}
				w.stores, w.models = append(w.stores, s), append(w.models, nil)
				w.replicas = append(w.replicas, create(t, s, d))
			}
			for range 150 {
				w.step()
			}
		})
	}
}

type logWorld struct {
	t         *testing.T
	random    *rand.Rand
	schema    *metasrvpb.TableSchema
	folders   []string
	stores    []*store.Store
	replicas  []*store.Replica
	models    []logModel
	leader    int
	epoch     uint64
	committed int
	writes    int
}

func (w *logWorld) step() {
	switch n := w.random.IntN(20); {
	case n < 8:
		w.append()
	case n < 15:
		w.replicate(w.random.IntN(3))
	case n < 17:
		w.elect()
	default:
		w.crash(w.random.IntN(3))
	}
}

// append has the leader store writes that nobody else has yet.
func (w *logWorld) append() {
	var writes []store.Write
	for range 1 + w.random.IntN(3) {
		w.writes++
		m := modelWrite{epoch: w.epoch, id: fmt.Sprint("w", w.writes)}
		for range 1 + w.random.IntN(4) {
			m.rows = append(m.rows, []any{fmt.Sprint("host-", w.random.IntN(3)), int64(w.random.IntN(4)), float64(w.writes)})
		}
		writes = append(writes, store.Write{ID: []byte(m.id), Rows: rowsOf(w.t, w.schema, m.rows...)})
		w.models[w.leader] = append(w.models[w.leader], m)
	}
	if _, err := w.replicas[w.leader].Append(w.t.Context(), w.epoch, writes, true, uint64(w.committed)); err != nil {
		w.t.Fatal(err)
	}
	w.check(w.leader)
}

// replicate feeds a follower some of what it lacks, as a region leader does.
func (w *logWorld) replicate(to int) {
	if to == w.leader {
		return
	}
	from, follower := w.replicas[w.leader], w.replicas[to]
	at := from.State().End()
	for {
		part := tail(w.t, from, at.Seq+1, w.random.IntN(3))
		part.Committed = uint64(w.committed)
		matched, hint, err := follower.Replay(w.t.Context(), part)
		if err != nil {
			w.t.Fatal(err)
		}
		w.replay(to, part, matched)
		if matched {
			break
		}
		if at, err = from.Common(w.t.Context(), hint); err != nil {
			w.t.Fatal(err)
		}
	}
	w.check(to)
	lowest := len(w.models[w.leader])
	for i := range w.models {
		lowest = min(lowest, w.common(i))
	}
	w.committed = max(w.committed, lowest)
}

// replay does on the model what Replay does.
func (w *logWorld) replay(to int, part store.Tail, matched bool) {
	m := w.models[to]
	if start := int(part.EpochStart); len(m) > start && m[start].epoch != part.Epoch {
		m = slices.Clone(m[:start])
	}
	if matched {
		for i, record := range part.Records {
			at := int(part.Previous.Seq) + i
			if at < len(m) && m[at].epoch == record.GetEpoch() {
				continue
			}
			m = append(slices.Clone(m[:at]), w.models[w.leader][at])
		}
	}
	w.models[to] = m
	w.check(to)
}

// common returns how many writes a replica has in common with the leader.
func (w *logWorld) common(i int) int {
	n := 0
	for n < min(len(w.models[i]), len(w.models[w.leader])) && w.models[i][n].id == w.models[w.leader][n].id {
		n++
	}
	return n
}

// elect makes any replica the leader: each has what is committed.
func (w *logWorld) elect() {
	w.leader = w.random.IntN(3)
	w.epoch++
	lead(w.t, w.replicas[w.leader], w.epoch)
}

// crash goes on with a copy of the folder as it is.
func (w *logWorld) crash(i int) {
	folder := w.t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(w.folders[i])); err != nil {
		w.t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(folder, "LOCK")); err != nil {
		w.t.Fatal(err)
	}
	if err := w.stores[i].Close(); err != nil {
		w.t.Fatal(err)
	}
	w.folders[i], w.stores[i] = folder, open(w.t, folder)
	r, err := w.stores[i].Replica(region)
	if err != nil || r.Damage() != nil {
		w.t.Fatal(err, r.Damage())
	}
	w.replicas[i] = r
	w.check(i)
}

func (w *logWorld) check(i int) {
	w.t.Helper()
	s := w.replicas[i].State()
	got := query(w.t, w.replicas[i], &tsdbpb.QueryRequest{Columns: names(w.schema)})
	slices.SortFunc(got, func(a, b []any) int { return slices.Compare([]byte(fmt.Sprint(a)), []byte(fmt.Sprint(b))) })
	if diff := gocmp.Diff(w.models[i].rows(len(w.schema.GetPrimaryKey()) > 0), got); diff != "" {
		w.t.Fatalf("replica %d: %s", i, diff)
	}
	want := store.Position{}
	if n := len(w.models[i]); n > 0 {
		want = store.Position{Epoch: w.models[i][n-1].epoch, Seq: uint64(n)}
	}
	if s.End() != want {
		w.t.Fatalf("replica %d is at %v, want %v", i, s.End(), want)
	}
}
