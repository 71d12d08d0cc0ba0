package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

// valuesPerInsert bounds the values of one INSERT, within SQLite's 32,766.
const valuesPerInsert = 1_000

// Write is rows with the id that makes a retry of them harmless. The rows have passed batch.Check.
type Write struct {
	ID   []byte
	Rows *tsdbpb.RowBatch
}

// Appended is the outcome of Append.
type Appended struct {
	// Seqs has the place of each write in the region's order; up to that of Previous if an earlier Append stored it.
	Seqs []uint64
	// Previous is the position before the new writes.
	Previous Position
	// Records are the new writes in order.
	Records []*tsdbpb.LogRecord
}

// Append stores writes on the leader of an epoch, all or none, and gives each new one the next place in the region's
// order. With keep the writes can be read by Log, and taken back until they are committed; all up to committed are.
// ErrStaleEpoch: the replica doesn't lead in that epoch any more.
func (r *Replica) Append(ctx context.Context, epoch uint64, writes []Write, keep bool, committed uint64) (*Appended, error) {
	var out *Appended
	err := r.update(ctx, func(tx *sql.Tx, s *State) error {
		if !s.Leads() || s.LeaderEpoch != epoch {
			return fmt.Errorf("%w: the replica doesn't lead in epoch %d any more, it is at epoch %d", ErrStaleEpoch, epoch, s.LeaderEpoch)
		}
		s.Committed = max(s.Committed, min(committed, s.StoredSeq))
		out = &Appended{Previous: s.End()}
		for _, w := range writes {
			seq, err := r.appendOne(ctx, tx, s, w, keep)
			if err != nil {
				return err
			}
			if seq > out.Previous.Seq+uint64(len(out.Records)) {
				out.Records = append(out.Records, &tsdbpb.LogRecord{Seq: seq, Epoch: epoch, WriteId: w.ID, Rows: w.Rows})
			}
			out.Seqs = append(out.Seqs, seq)
		}
		return nil
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
	record := &tsdbpb.LogRecord{Seq: s.StoredSeq + 1, Epoch: s.LeaderEpoch, WriteId: w.ID, Rows: w.Rows}
	return record.GetSeq(), r.storeRecord(ctx, tx, s, record, keep)
}

// storeRecord stores the record that follows the state, and moves the state on.
func (r *Replica) storeRecord(ctx context.Context, tx *sql.Tx, s *State, record *tsdbpb.LogRecord, keep bool) error {
	if record.GetSeq() != s.StoredSeq+1 || record.GetEpoch() < s.LogEpoch {
		return fmt.Errorf("write %d of epoch %d follows write %d of epoch %d", record.GetSeq(), record.GetEpoch(), s.StoredSeq, s.LogEpoch)
	}
	if err := r.storeRows(ctx, tx, record, keep); err != nil {
		return err
	}
	return addRecord(ctx, tx, s, record, keep)
}

// storeRows stores the rows of a record. Where they may have to be taken back, what they replace is kept. Most writes of a
// time series replace nothing, which shows only when it is tried.
func (r *Replica) storeRows(ctx context.Context, tx *sql.Tx, record *tsdbpb.LogRecord, keep bool) error {
	if !keep || !r.table.keyed() {
		_, err := r.insertRows(ctx, tx, record.GetRows(), replaceRows)
		return err
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT rows"); err != nil {
		return err
	}
	n, err := r.insertRows(ctx, tx, record.GetRows(), keepRows)
	if err != nil {
		return err
	}
	if n != uint64(record.GetRows().GetRowCount()) {
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO rows"); err != nil {
			return err
		}
		if err := r.rememberRows(ctx, tx, record.GetSeq(), record.GetRows()); err != nil {
			return err
		}
		if _, err := r.insertRows(ctx, tx, record.GetRows(), replaceRows); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, "RELEASE rows")
	return err
}

// insertRows stores rows in the way that the verb says, and returns how many it stored.
func (r *Replica) insertRows(ctx context.Context, tx *sql.Tx, rows *tsdbpb.RowBatch, verb string) (stored uint64, err error) {
	columns := r.table.order(rows)
	total := int(rows.GetRowCount())
	chunk := max(1, min(total, valuesPerInsert/len(columns)))
	var many *sql.Stmt
	for from := 0; from < total; from += chunk {
		to := min(from+chunk, total)
		args := rowArgs(columns, from, to)
		var result sql.Result
		if to-from < chunk {
			result, err = tx.ExecContext(ctx, r.table.insertSQL(verb, to-from), args...)
		} else {
			if many == nil {
				if many, err = tx.PrepareContext(ctx, r.table.insertSQL(verb, chunk)); err != nil {
					return 0, err
				}
				defer func() { _ = many.Close() }() // the transaction decides
			}
			result, err = many.ExecContext(ctx, args...)
		}
		if err != nil {
			return 0, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return 0, err
		}
		stored += uint64(max(0, n)) //nolint:gosec // not negative
	}
	return stored, nil
}

func rowArgs(columns []*tsdbpb.ColumnValues, from, to int) []any {
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
	return args
}
