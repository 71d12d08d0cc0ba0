package store

import (
	"context"
	"database/sql"
	"fmt"
)

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func readMeta(ctx context.Context, q querier) (_ map[string]any, err error) {
	rows, err := q.QueryContext(ctx, "SELECT key, value FROM meta")
	if err != nil {
		return nil, fmt.Errorf("read meta: %w", err)
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	meta := map[string]any{}
	for rows.Next() {
		var key string
		var value any
		if err := rows.Scan(&key, &value); err != nil {
			return nil, fmt.Errorf("read meta: %w", err)
		}
		meta[key] = value
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read meta: %w", err)
	}
	return meta, nil
}

// stateOf returns ErrDamaged where a part of the state is missing.
func stateOf(meta map[string]any) (State, error) {
	var numbers [3]uint64
	for i, key := range []string{"leader_epoch", "stored_seq", "rows"} {
		n, ok := meta[key].(int64)
		if !ok || n < 0 {
			return State{}, fmt.Errorf("%w: meta has no %s", ErrDamaged, key)
		}
		numbers[i] = uint64(n)
	}
	id, ok := meta["last_write_id"].([]byte)
	if !ok {
		return State{}, fmt.Errorf("%w: meta has no last_write_id", ErrDamaged)
	}
	return State{LeaderEpoch: numbers[0], StoredSeq: numbers[1], Rows: numbers[2], LastWriteID: id}, nil
}

func writeState(ctx context.Context, tx *sql.Tx, s State) error {
	id := s.LastWriteID
	if id == nil {
		id = []byte{}
	}
	_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO meta VALUES
		('leader_epoch', ?), ('stored_seq', ?), ('rows', ?), ('last_write_id', ?)`,
		int64(s.LeaderEpoch), int64(s.StoredSeq), int64(s.Rows), id) //nolint:gosec // counters stay below 2^63
	return err
}
