package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

const (
	// rememberedWrites is how many write ids of a region are known at least.
	rememberedWrites = 10_000
	// valuesPerInsert bounds the values of one INSERT, within SQLite's 32,766.
	valuesPerInsert = 1_000
)

// Write is rows with the id that makes a retry of them harmless. The rows have passed batch.Check.
type Write struct {
	ID   []byte
	Rows *tsdbpb.RowBatch
}

// Appended is the outcome of Append.
type Appended struct {
	// Seqs has the place of each write in the region's order; lower than First if an earlier Append stored it.
	Seqs []uint64
	// First is the place that the first new write got, or would have got.
	First uint64
	// Previous is the id of the write before First, empty where there is none.
	Previous []byte
	// Records are the new writes in order.
	Records []*tsdbpb.LogRecord
}

// Append stores writes on a region leader, all or none, and gives each new one the next place in the region's
// order. With keep the writes stay readable by Log. Kept writes up to place confirmed are forgotten.
func (r *Replica) Append(ctx context.Context, writes []Write, keep bool, confirmed uint64) (*Appended, error) {
	var out *Appended
	err := r.update(ctx, func(tx *sql.Tx, s *State) error {
		out = &Appended{First: s.StoredSeq + 1, Previous: s.LastWriteID}
		for _, w := range writes {
			seq, err := r.appendOne(ctx, tx, s, w, keep)
			if err != nil {
				return err
			}
			if seq > out.First-1+uint64(len(out.Records)) {
				out.Records = append(out.Records, &tsdbpb.LogRecord{Seq: seq, WriteId: w.ID, Rows: w.Rows})
			}
			out.Seqs = append(out.Seqs, seq)
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM log WHERE seq <= ?", int64(confirmed)) //nolint:gosec // a place
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write to region %s: %w", r.region, err)
	}
	return out, nil
}

func (r *Replica) appendOne(ctx context.Context, tx *sql.Tx, s *State, w Write, keep bool) (uint64, error) {
	var stored int64
	err := tx.QueryRowContext(ctx, "SELECT seq FROM writes WHERE write_id = ?", w.ID).Scan(&stored)
	if err == nil {
		return uint64(stored), nil //nolint:gosec // a place
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	record := &tsdbpb.LogRecord{Seq: s.StoredSeq + 1, WriteId: w.ID, Rows: w.Rows}
	if keep {
		data, err := proto.Marshal(w.Rows)
		if err != nil {
			return 0, err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO log VALUES (?, ?, ?)",
			int64(record.GetSeq()), w.ID, data); err != nil { //nolint:gosec // a place
			return 0, err
		}
	}
	return record.GetSeq(), r.storeRecord(ctx, tx, s, record)
}

// Replay stores records of the region leader on a follower, and returns the place up to which it has all. Records
// that it has are skipped; where records are missing before the first one, nothing is stored. The epoch of the
// leader is made durable with them; a lower one than the replica's is ErrStaleEpoch. Another write in the place
// of a record, or of the one before them, which has the id previous, is ErrDiverged.
func (r *Replica) Replay(
	ctx context.Context, epoch uint64, previous []byte, records []*tsdbpb.LogRecord,
) (stored uint64, err error) {
	if s := r.State(); len(records) == 0 && s.LeaderEpoch == epoch {
		return s.StoredSeq, r.Damage()
	}
	err = r.update(ctx, func(tx *sql.Tx, s *State) error {
		if epoch < s.LeaderEpoch {
			return fmt.Errorf("%w: %d, the replica has %d", ErrStaleEpoch, epoch, s.LeaderEpoch)
		}
		s.LeaderEpoch = epoch
		if len(records) > 0 && records[0].GetSeq() <= s.StoredSeq+1 {
			if err := r.replay(ctx, tx, s, previous, records); err != nil {
				return err
			}
		}
		stored = s.StoredSeq
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("replicate region %s: %w", r.region, err)
	}
	return stored, nil
}

func (r *Replica) replay(
	ctx context.Context, tx *sql.Tx, s *State, previous []byte, records []*tsdbpb.LogRecord,
) error {
	if err := checkPlace(ctx, tx, s, records[0].GetSeq()-1, previous); err != nil {
		return err
	}
	for _, record := range records {
		if record.GetSeq() <= s.StoredSeq {
			if err := checkPlace(ctx, tx, s, record.GetSeq(), record.GetWriteId()); err != nil {
				return err
			}
			continue
		}
		if err := r.storeRecord(ctx, tx, s, record); err != nil {
			return err
		}
	}
	return nil
}

// checkPlace returns ErrDiverged if another write than id is known to be in the place seq.
func checkPlace(ctx context.Context, tx *sql.Tx, s *State, seq uint64, id []byte) error {
	if seq == 0 {
		return nil
	}
	var known []byte
	err := tx.QueryRowContext(ctx, "SELECT write_id FROM writes WHERE seq = ?", int64(seq)).Scan(&known) //nolint:gosec // a place
	switch {
	case errors.Is(err, sql.ErrNoRows) && seq+rememberedWrites <= s.StoredSeq:
		return nil // too long ago to be remembered
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	case string(known) != string(id):
		return fmt.Errorf("%w: write %d", ErrDiverged, seq)
	}
	return nil
}

// storeRecord stores the record that follows the state, and moves the state on.
func (r *Replica) storeRecord(ctx context.Context, tx *sql.Tx, s *State, record *tsdbpb.LogRecord) error {
	if record.GetSeq() != s.StoredSeq+1 {
		return fmt.Errorf("write %d follows %d", record.GetSeq(), s.StoredSeq)
	}
	if err := r.insertRows(ctx, tx, record.GetRows()); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO writes VALUES (?, ?)",
		int64(record.GetSeq()), record.GetWriteId()); err != nil { //nolint:gosec // a place
		return err
	}
	s.StoredSeq, s.LastWriteID = record.GetSeq(), record.GetWriteId()
	s.Rows += uint64(record.GetRows().GetRowCount())
	return nil
}

func (r *Replica) insertRows(ctx context.Context, tx *sql.Tx, rows *tsdbpb.RowBatch) error {
	columns := r.table.order(rows)
	total := int(rows.GetRowCount())
	chunk := max(1, min(total, valuesPerInsert/len(columns)))
	var many *sql.Stmt
	for from := 0; from < total; from += chunk {
		to := min(from+chunk, total)
		args := make([]any, 0, (to-from)*len(columns))
		for row := from; row < to; row++ {
			for _, c := range columns {
				var v any
				if c != nil {
					v = toSQL(batch.Value(c, row))
				}
				args = append(args, v)
			}
		}
		if to-from < chunk {
			if _, err := tx.ExecContext(ctx, r.table.insertSQL(to-from), args...); err != nil {
				return err
			}
			break
		}
		if many == nil {
			var err error
			if many, err = tx.PrepareContext(ctx, r.table.insertSQL(chunk)); err != nil {
				return err
			}
			defer func() { _ = many.Close() }() // the transaction decides
		}
		if _, err := many.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// update runs fn in a transaction with the state as it is in the file, and makes the state that fn leaves
// durable with the rest. After an error nothing has changed, or, where the commit's outcome is unknown, the
// next update sees what has.
func (r *Replica) update(ctx context.Context, fn func(tx *sql.Tx, s *State) error) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	return r.use(func(f *file) error {
		tx, err := f.writer.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after a commit
		meta, err := readMeta(ctx, tx)
		if err != nil {
			return err
		}
		s, err := stateOf(meta)
		if err != nil {
			return err
		}
		s.Rows = r.State().Rows // counted meanwhile
		before := s
		if err := fn(tx, &s); err != nil {
			return err
		}
		if s.StoredSeq > rememberedWrites {
			if _, err := tx.ExecContext(ctx, "DELETE FROM writes WHERE seq <= ?",
				int64(s.StoredSeq-rememberedWrites)); err != nil { //nolint:gosec // a place
				return err
			}
		}
		if err := writeState(ctx, tx, s); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.state = s
		r.uncounted += s.Rows - before.Rows
		return nil
	})
}

// Log returns kept writes from place first on, at least one and about maxBytes of them, and the id of the write
// before. None at all: there is no write in that place, or it is no longer kept.
func (r *Replica) Log(ctx context.Context, first uint64, maxBytes int) (records []*tsdbpb.LogRecord, previous []byte, err error) {
	err = r.use(func(f *file) error {
		err := f.writer.QueryRowContext(ctx, "SELECT write_id FROM writes WHERE seq = ?",
			int64(first)-1).Scan(&previous) //nolint:gosec // a place
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		rows, err := f.writer.QueryContext(ctx, "SELECT seq, write_id, rows FROM log WHERE seq >= ? ORDER BY seq",
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
		return nil, nil, fmt.Errorf("read log of region %s: %w", r.region, err)
	}
	return records, previous, nil
}

func scanRecord(rows *sql.Rows) (*tsdbpb.LogRecord, int, error) {
	var seq int64
	var data []byte
	record := &tsdbpb.LogRecord{Rows: &tsdbpb.RowBatch{}}
	if err := rows.Scan(&seq, &record.WriteId, &data); err != nil {
		return nil, 0, err
	}
	record.Seq = uint64(seq) //nolint:gosec // a place
	if err := proto.Unmarshal(data, record.GetRows()); err != nil {
		return nil, 0, fmt.Errorf("%w: record %d: %w", ErrDamaged, seq, err)
	}
	return record, len(data), nil
}
