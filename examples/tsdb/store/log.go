package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

const (
	// keptWrites and keptBytes bound the writes that are kept for replicas that lag, where nothing needs more.
	keptWrites = 20_000
	keptBytes  = 64 << 20
	// heldBytes bounds what is kept for a copy that is under way.
	heldBytes = 512 << 20
)

// Position is a place in a region's log, with the epoch in which its record was numbered; zeros are before the first. Logs
// that have the same epoch in a place are the same up to there: a region leader numbers in its own epoch only, and is the
// only one that does.
type Position struct{ Epoch, Seq uint64 }

// addRecord puts a record into the log, behind the state, and moves the state on. The rows are stored already.
func addRecord(ctx context.Context, tx *sql.Tx, s *State, record *tsdbpb.LogRecord, keep bool) error {
	seq := int64(record.GetSeq()) //nolint:gosec // a place
	// The leader may have forgotten an id, and stored it anew, that is still known here: it forgets after each group of its own.
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO writes VALUES (?, ?)", seq, record.GetWriteId()); err != nil {
		return err
	}
	if record.GetEpoch() != s.LogEpoch {
		if _, err := tx.ExecContext(ctx, "INSERT INTO epochs VALUES (?, ?)", seq, int64(record.GetEpoch())); err != nil { //nolint:gosec // a number from a sequence
			return err
		}
	}
	if keep {
		data, err := proto.Marshal(record.GetRows())
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO log VALUES (?, ?, ?, ?)",
			seq, int64(record.GetEpoch()), record.GetWriteId(), data); err != nil { //nolint:gosec // a number from a sequence
			return err
		}
		s.LogBytes += uint64(len(data))
	} else {
		s.LogFirst, s.LogBytes = record.GetSeq()+1, 0
	}
	s.StoredSeq, s.LogEpoch = record.GetSeq(), record.GetEpoch()
	s.Rows += uint64(record.GetRows().GetRowCount())
	return nil
}

// forget deletes what is no longer needed of the log: previous rows of what is committed, write ids of long ago, and
// committed writes beyond what is kept.
func (r *Replica) forget(ctx context.Context, tx *sql.Tx, before State, s *State) error {
	if s.Committed > before.Committed && r.table.keyed() {
		if _, err := tx.ExecContext(ctx, "DELETE FROM undo WHERE seq <= ?", int64(s.Committed)); err != nil { //nolint:gosec // a place
			return err
		}
	}
	if s.StoredSeq != before.StoredSeq {
		if err := r.forgetIDs(ctx, tx, s.StoredSeq, s.StoredSeq-min(s.StoredSeq, before.StoredSeq)); err != nil {
			return err
		}
	}
	if s.LogFirst > before.LogFirst {
		// Writes were stored that are not kept: what was kept before them is of no use.
		_, err := tx.ExecContext(ctx, "DELETE FROM log WHERE seq < ?", int64(s.LogFirst)) //nolint:gosec // a place
		return err
	}
	return r.trim(ctx, tx, s)
}

// trim deletes the first writes of the log where it is longer than is kept.
func (r *Replica) trim(ctx context.Context, tx *sql.Tx, s *State) error {
	long := func(slack uint64) bool {
		return s.StoredSeq+1-s.LogFirst > keptWrites+slack*keptWrites/10 || s.LogBytes > keptBytes+slack*keptBytes/10
	}
	last := s.Committed
	if held := r.Held(); held > 0 && s.LogBytes < heldBytes {
		last = min(last, held-1)
	}
	if s.LogFirst > s.StoredSeq || s.LogFirst > last || !long(1) { // with some slack, so that it is rare
		return nil
	}
	rows, err := tx.QueryContext(ctx, "SELECT seq, length(rows) FROM log WHERE seq <= ? ORDER BY seq", int64(last)) //nolint:gosec // a place
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	for long(0) && rows.Next() {
		var seq, size int64
		if err := rows.Scan(&seq, &size); err != nil {
			return err
		}
		s.LogFirst = uint64(seq) + 1                        //nolint:gosec // a place
		s.LogBytes -= min(s.LogBytes, uint64(max(0, size))) //nolint:gosec // not negative
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM log WHERE seq < ?", int64(s.LogFirst)) //nolint:gosec // a place
	return err
}

// Hold keeps the writes from a place on in the log, 0: no longer.
func (r *Replica) Hold(seq uint64) { r.held.Store(seq) }

// Held returns the place from which on the log is held, 0 where it isn't.
func (r *Replica) Held() uint64 { return r.held.Load() }

// epochAt returns the epoch of the record in a place, 0 in place 0.
func epochAt(ctx context.Context, q querier, seq uint64) (uint64, error) {
	p, err := commonAt(ctx, q, Position{Epoch: 1<<63 - 1, Seq: seq})
	return p.Epoch, err
}

// commonAt returns the last place up to that of p whose record has an epoch up to that of p.
func commonAt(ctx context.Context, q querier, p Position) (Position, error) {
	var first, epoch int64
	err := q.QueryRowContext(ctx, "SELECT first_seq, epoch FROM epochs WHERE first_seq <= ? AND epoch <= ? ORDER BY first_seq DESC LIMIT 1",
		int64(p.Seq), int64(p.Epoch)).Scan(&first, &epoch) //nolint:gosec // numbers from sequences
	if errors.Is(err, sql.ErrNoRows) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, err
	}
	var next sql.NullInt64
	if err := q.QueryRowContext(ctx, "SELECT min(first_seq) FROM epochs WHERE first_seq > ?", first).Scan(&next); err != nil {
		return Position{}, err
	}
	found := Position{Epoch: uint64(epoch), Seq: p.Seq} //nolint:gosec // from a sequence
	if next.Valid {
		found.Seq = min(found.Seq, uint64(next.Int64)-1) //nolint:gosec // a place
	}
	return found, nil
}

// Common returns the last position in the replica's log that one who knows of a record at p may have too: at or before
// p, and of an epoch no higher.
func (r *Replica) Common(ctx context.Context, p Position) (found Position, err error) {
	err = r.use(func(f *file) error {
		found, err = commonAt(ctx, f.reader, p)
		return err
	})
	if err != nil {
		return Position{}, fmt.Errorf("read log of region %s: %w", r.region, err)
	}
	return Position{Epoch: found.Epoch, Seq: min(found.Seq, r.State().StoredSeq)}, nil
}

// Log returns kept writes from place first on, at least one and about maxBytes of them, and the position before the first.
// None at all: there is no write in that place, or it is no longer kept.
func (r *Replica) Log(ctx context.Context, first uint64, maxBytes int) (records []*tsdbpb.LogRecord, previous Position, err error) {
	err = r.use(func(f *file) error {
		epoch, err := epochAt(ctx, f.reader, first-1)
		if err != nil {
			return err
		}
		previous = Position{Epoch: epoch, Seq: first - 1}
		rows, err := f.reader.QueryContext(ctx, "SELECT seq, epoch, write_id, rows FROM log WHERE seq >= ? ORDER BY seq",
			int64(first)) //nolint:gosec // a place
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // its error is that of Err
		for size := 0; rows.Next() && (size == 0 || size < maxBytes); {
			record, n, err := scanRecord(rows)
			if err != nil {
				return err
			}
			if record.GetSeq() != first+uint64(len(records)) {
				return nil
			}
			records, size = append(records, record), size+n
		}
		return rows.Err()
	})
	if err != nil {
		return nil, Position{}, fmt.Errorf("read log of region %s: %w", r.region, err)
	}
	return records, previous, nil
}

func scanRecord(rows *sql.Rows) (*tsdbpb.LogRecord, int, error) {
	var seq, epoch int64
	var data []byte
	record := &tsdbpb.LogRecord{Rows: &tsdbpb.RowBatch{}}
	if err := rows.Scan(&seq, &epoch, &record.WriteId, &data); err != nil {
		return nil, 0, err
	}
	record.Seq, record.Epoch = uint64(seq), uint64(epoch) //nolint:gosec // numbers from sequences
	if err := proto.Unmarshal(data, record.GetRows()); err != nil {
		return nil, 0, fmt.Errorf("%w: record %d: %w", ErrDamaged, seq, err)
	}
	return record, len(data), nil
}
