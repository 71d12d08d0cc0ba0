package store

import (
	"context"
	"database/sql"
	"time"
)

const (
	// rememberedFor is how long the id of a write is known after it was stored here: far longer than anybody repeats it.
	rememberedFor = 5 * time.Minute
	// leastRemembered ids are known however old they are, and no more than mostRemembered however young: an id takes some 60
	// bytes of the replica's file.
	leastRemembered = 1_000
	mostRemembered  = 500_000
	// markEvery lies between two marks.
	markEvery = 15 * time.Second
)

// writeAges knows about how old the writes of a replica are, from marks that it sets now and then. Of what was stored before the
// file was opened it knows no more than that.
type writeAges struct{ marks []ageMark }

// ageMark says that all writes up to a place were stored at a time, or before.
type ageMark struct {
	at  time.Time
	seq uint64
}

// mark notes that writes up to a place are stored.
func (a *writeAges) mark(now time.Time, stored uint64) {
	if n := len(a.marks); n == 0 || now.Sub(a.marks[n-1].at) >= markEvery {
		a.marks = append(a.marks, ageMark{now, stored})
	}
}

// cut notes that the writes behind a place are taken back: those which get their places are younger.
func (a *writeAges) cut(to uint64) {
	for i := range a.marks {
		a.marks[i].seq = min(a.marks[i].seq, to)
	}
}

// old returns the last place whose write id may be forgotten.
func (a *writeAges) old(now time.Time, stored uint64) uint64 {
	isOld := func(m ageMark) bool { return now.Sub(m.at) >= rememberedFor }
	for len(a.marks) > 1 && isOld(a.marks[1]) {
		a.marks = a.marks[1:]
	}
	old := uint64(0)
	if len(a.marks) > 0 && isOld(a.marks[0]) {
		old = a.marks[0].seq
	}
	old = max(old, stored-min(stored, mostRemembered))
	return min(old, stored-min(stored, leastRemembered))
}

// forgetIDs deletes write ids that are old after so many writes were stored: some more than those, so that no write waits for
// the deletion of all ids that a minute has brought.
func (r *Replica) forgetIDs(ctx context.Context, tx *sql.Tx, stored, added uint64) error {
	now := time.Now()
	r.ages.mark(now, stored)
	old := r.ages.old(now, stored)
	if old == 0 {
		return nil
	}
	var first sql.NullInt64
	if err := tx.QueryRowContext(ctx, "SELECT min(seq) FROM writes").Scan(&first); err != nil || !first.Valid {
		return err
	}
	upTo := min(old, uint64(first.Int64)+2*added+100)                               //nolint:gosec // a place
	_, err := tx.ExecContext(ctx, "DELETE FROM writes WHERE seq <= ?", int64(upTo)) //nolint:gosec // a place
	return err
}
