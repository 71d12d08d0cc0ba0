package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// State is where a replica stands.
type State struct {
	LeaderEpoch uint64
	// ConfVersion is that of Config.
	ConfVersion uint64
	Role        metasrvpb.ReplicaRole
	// Demoted: the replica led under LeaderEpoch, and acknowledges nothing any more.
	Demoted bool
	// Config is what the replica was last told of its region. It must not be changed in place.
	Config *metasrvpb.RegionConfig
	// EpochStart is, where the replica leads, the last place before those that it numbers in LeaderEpoch.
	EpochStart uint64
	// LogEpoch and StoredSeq are the last stored write's epoch and place in the region's order, 0 before the first.
	LogEpoch, StoredSeq uint64
	// Committed is the place up to which no write is ever taken back, as far as the replica knows.
	Committed uint64
	// LogFirst is the first write that is kept for others, if it isn't above StoredSeq; LogBytes are the bytes of those.
	LogFirst, LogBytes uint64
	// Rows is about the number of rows.
	Rows uint64
}

// Leads reports whether the replica leads its region, as it was told, and was not told to stop.
func (s State) Leads() bool {
	return s.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER && !s.Demoted
}

// End returns the last stored write's position.
func (s State) End() Position { return Position{s.LogEpoch, s.StoredSeq} }

// InSync reports whether a replica was in the in-sync set, as the present one was last told.
func (s State) InSync(id metasrv.ReplicaID) bool {
	return slices.ContainsFunc(s.Config.GetReplicas(), func(r *metasrvpb.ReplicaConfig) bool {
		return r.GetReplicaId() == uint64(id) && r.GetInSync()
	})
}

// Newer reports whether a pair of leader_epoch and conf_version is newer than the replica's.
func (s State) Newer(epoch, conf uint64) bool {
	return epoch > s.LeaderEpoch || epoch == s.LeaderEpoch && conf > s.ConfVersion
}

// Older reports whether such a pair is older.
func (s State) Older(epoch, conf uint64) bool {
	return epoch < s.LeaderEpoch || epoch == s.LeaderEpoch && conf < s.ConfVersion
}

// initialState is that of a replica that was just created: all replicas of a new table are in sync, for they are empty.
func initialState(d *tsdbpb.CreateRegionRequest) State {
	s := State{
		LeaderEpoch: d.GetRoute().GetLeaderEpoch(), ConfVersion: d.GetConfVersion(), Role: d.GetRole(), LogFirst: 1,
		Config: &metasrvpb.RegionConfig{
			RegionId: d.GetRoute().GetRegionId(), LeaderEpoch: d.GetRoute().GetLeaderEpoch(), ConfVersion: d.GetConfVersion(),
			LeaderReplicaId: d.GetLeaderReplicaId(),
		},
	}
	if d.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER {
		return s // it learns of the others from what it is told next
	}
	s.Config.Replicas = []*metasrvpb.ReplicaConfig{{ReplicaId: d.GetRoute().GetReplicaId(), InSync: true}}
	for _, p := range d.GetPeers() {
		s.Config.Replicas = append(s.Config.Replicas,
			&metasrvpb.ReplicaConfig{ReplicaId: p.GetReplicaId(), Peer: p.GetPeer(), InSync: true})
	}
	if d.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
		s.Config.LeaderReplicaId = d.GetRoute().GetReplicaId()
	}
	return s
}

// Change has fn change who the replica is: epoch, configuration, role. It returns when that is durable.
func (r *Replica) Change(ctx context.Context, fn func(s *State) error) error {
	err := r.update(ctx, func(_ *sql.Tx, s *State) error { return fn(s) })
	if err != nil {
		return fmt.Errorf("change region %s: %w", r.region, err)
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
		s, err := readState(ctx, tx)
		if err != nil {
			return err
		}
		s.Rows = r.State().Rows // counted meanwhile
		before := s
		if err := fn(tx, &s); err != nil {
			return err
		}
		if err := r.forget(ctx, tx, before, &s); err != nil {
			return err
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
		if before.StoredSeq != s.StoredSeq {
			r.uncounted += max(s.Rows, before.Rows) - min(s.Rows, before.Rows) + 1
		}
		return nil
	})
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const stateLayout = `CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), leader_epoch INTEGER NOT NULL, conf_version INTEGER NOT NULL,
	role INTEGER NOT NULL, demoted INTEGER NOT NULL, epoch_start INTEGER NOT NULL, log_epoch INTEGER NOT NULL,
	stored_seq INTEGER NOT NULL, committed_seq INTEGER NOT NULL, log_first INTEGER NOT NULL, log_bytes INTEGER NOT NULL,
	rows INTEGER NOT NULL, config BLOB NOT NULL) STRICT`

// readState returns ErrDamaged where there is no state that makes sense.
func readState(ctx context.Context, q querier) (State, error) {
	var n [10]int64
	var demoted bool
	var config []byte
	err := q.QueryRowContext(ctx, `SELECT leader_epoch, conf_version, role, epoch_start, log_epoch, stored_seq, committed_seq,
		log_first, log_bytes, rows, demoted, config FROM state`).Scan(
		&n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7], &n[8], &n[9], &demoted, &config)
	if errors.Is(err, sql.ErrNoRows) {
		return State{}, fmt.Errorf("%w: it has no state", ErrDamaged)
	}
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	for _, v := range n {
		if v < 0 {
			return State{}, fmt.Errorf("%w: its state has negative numbers", ErrDamaged)
		}
	}
	s := State{
		LeaderEpoch: uint64(n[0]), ConfVersion: uint64(n[1]), Role: metasrvpb.ReplicaRole(n[2]), Demoted: demoted, //nolint:gosec // checked
		EpochStart: uint64(n[3]), LogEpoch: uint64(n[4]), StoredSeq: uint64(n[5]), Committed: uint64(n[6]), //nolint:gosec // checked
		LogFirst: uint64(n[7]), LogBytes: uint64(n[8]), Rows: uint64(n[9]), Config: &metasrvpb.RegionConfig{}, //nolint:gosec // checked
	}
	if err := proto.Unmarshal(config, s.Config); err != nil {
		return State{}, fmt.Errorf("%w: its configuration can't be read: %w", ErrDamaged, err)
	}
	return s, nil
}

func writeState(ctx context.Context, tx *sql.Tx, s State) error {
	config, err := proto.Marshal(s.Config)
	if err != nil {
		return err
	}
	if config == nil {
		config = []byte{}
	}
	//nolint:gosec // numbers from sequences stay below 2^63
	_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO state (id, leader_epoch, conf_version, role, demoted, epoch_start, log_epoch,
		stored_seq, committed_seq, log_first, log_bytes, rows, config) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		int64(s.LeaderEpoch), int64(s.ConfVersion), int64(s.Role), s.Demoted, int64(s.EpochStart), int64(s.LogEpoch),
		int64(s.StoredSeq), int64(s.Committed), int64(s.LogFirst), int64(s.LogBytes), int64(s.Rows), config)
	return err
}

// readMeta returns who the replica is, which never changes.
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
