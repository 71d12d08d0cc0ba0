package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

// cut takes back all writes behind a place, the last one first. ErrDiverged: one of them is committed, or what it replaced
// is not known; then only a copy of the region leader's replica helps.
func (r *Replica) cut(ctx context.Context, tx *sql.Tx, s *State, to uint64) error {
	if to < s.Committed {
		return fmt.Errorf("%w: write %d is committed here, and the region leader doesn't have it", ErrDiverged, to+1)
	}
	r.ages.cut(to)
	for s.StoredSeq > to {
		if err := r.undo(ctx, tx, s); err != nil {
			return err
		}
	}
	seq := int64(to) //nolint:gosec // a place
	for _, table := range []string{"log", "writes"} {
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE seq > ?", seq); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM epochs WHERE first_seq > ?", seq); err != nil {
		return err
	}
	epoch, err := epochAt(ctx, tx, to)
	s.LogEpoch = epoch
	s.LogFirst = min(s.LogFirst, to+1)
	return err
}

// undo takes back the rows of the last write.
func (r *Replica) undo(ctx context.Context, tx *sql.Tx, s *State) error {
	seq := int64(s.StoredSeq) //nolint:gosec // a place
	var data []byte
	err := tx.QueryRowContext(ctx, "SELECT rows FROM log WHERE seq = ?", seq).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: write %d is not kept, so it can't be taken back", ErrDiverged, seq)
	}
	if err != nil {
		return err
	}
	rows := &tsdbpb.RowBatch{}
	if err := proto.Unmarshal(data, rows); err != nil {
		return fmt.Errorf("%w: record %d: %w", ErrDamaged, seq, err)
	}
	if r.table.keyed() {
		err = r.undoKeyed(ctx, tx, seq, rows)
	} else {
		_, err = tx.ExecContext(ctx, "DELETE FROM data WHERE rowid IN (SELECT rowid FROM data ORDER BY rowid DESC LIMIT ?)", int64(rows.GetRowCount()))
	}
	if err != nil {
		return err
	}
	s.StoredSeq--
	s.LogBytes -= min(s.LogBytes, uint64(len(data)))
	s.Rows -= min(s.Rows, uint64(rows.GetRowCount()))
	return nil
}

func (r *Replica) undoKeyed(ctx context.Context, tx *sql.Tx, seq int64, rows *tsdbpb.RowBatch) error {
	err := r.table.eachKeys(rows, func(values string, keys []any) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM data WHERE ("+r.table.keyNames("")+") IN (VALUES "+values+")", keys...)
		return err
	})
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO data SELECT "+r.table.names("")+" FROM undo WHERE seq = ?", seq); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM undo WHERE seq = ?", seq)
	return err
}

// rememberRows keeps the rows that a write is about to replace.
func (r *Replica) rememberRows(ctx context.Context, tx *sql.Tx, seq uint64, rows *tsdbpb.RowBatch) error {
	return r.table.eachKeys(rows, func(values string, keys []any) error {
		var on []string
		for i, name := range r.table.key() {
			on = append(on, fmt.Sprintf("d.%s = v.column%d", name, i+1))
		}
		_, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO undo SELECT ?, "+r.table.names("d.")+
			" FROM (VALUES "+values+") AS v CROSS JOIN data AS d ON "+strings.Join(on, " AND "),
			append([]any{int64(seq)}, keys...)...) //nolint:gosec // a place
		return err
	})
}

// keyed reports whether rows replace rows with the same primary key.
func (t *table) keyed() bool { return len(t.schema.GetPrimaryKey()) > 0 }

// key returns the names of the primary key's columns.
func (t *table) key() []string {
	var key []string
	for _, name := range t.schema.GetPrimaryKey() {
		key = append(key, sqlName(t.index[name]))
	}
	return key
}

func (t *table) keyNames(prefix string) string {
	return prefix + strings.Join(t.key(), ", "+prefix)
}

// names returns the names of all columns, in order.
func (t *table) names(prefix string) string {
	var names []string
	for i := range t.schema.GetColumns() {
		names = append(names, prefix+sqlName(i))
	}
	return strings.Join(names, ", ")
}

// undoSQL returns the statement that makes the table of replaced rows.
func (t *table) undoSQL() string {
	columns := []string{"seq INTEGER NOT NULL"}
	for i, c := range t.schema.GetColumns() {
		columns = append(columns, sqlName(i)+" "+sqlTypes[c.GetType()])
	}
	return "CREATE TABLE undo (" + strings.Join(columns, ", ") + ", PRIMARY KEY (seq, " + t.keyNames("") + ")) STRICT, WITHOUT ROWID"
}

// eachKeys calls fn with the primary keys of rows as a list of VALUES and its arguments, some at a time.
func (t *table) eachKeys(rows *tsdbpb.RowBatch, fn func(values string, keys []any) error) error {
	all := t.order(rows)
	var columns []*tsdbpb.ColumnValues
	for _, name := range t.schema.GetPrimaryKey() {
		columns = append(columns, all[t.index[name]])
	}
	one := "(" + strings.TrimSuffix(strings.Repeat("?,", len(columns)), ",") + ")"
	total := int(rows.GetRowCount())
	chunk := max(1, valuesPerInsert/len(columns))
	for from := 0; from < total; from += chunk {
		to := min(from+chunk, total)
		keys := make([]any, 0, (to-from)*len(columns))
		for row := from; row < to; row++ {
			for _, c := range columns {
				keys = append(keys, toSQL(batch.Value(c, row)))
			}
		}
		if err := fn(strings.TrimSuffix(strings.Repeat(one+",", to-from), ","), keys); err != nil {
			return err
		}
	}
	return nil
}
