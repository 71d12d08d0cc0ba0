package store

import (
	"context"
	"database/sql"
	"fmt"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Tail is a part of the region leader's log.
type Tail struct {
	// Epoch is that of the leader, EpochStart the last place before those that it numbered.
	Epoch, EpochStart uint64
	// Previous is the position before Records.
	Previous Position
	Records  []*tsdbpb.LogRecord
	// Committed is the place up to which nothing is taken back.
	Committed uint64
}

// end returns the last place of the part.
func (t Tail) end() uint64 { return t.Previous.Seq + uint64(len(t.Records)) }

// Replay makes the log of a replica that doesn't lead agree with a part of the leader's. Matched: the replica has the
// leader's log up to the end of the part, durably; what else it had in those places, and what it had from earlier epochs
// behind EpochStart, is taken back. Otherwise nothing is stored, and hint is the last position that may be common.
//
// The epoch is made durable with it, before anything else of the leader's counts. ErrStaleEpoch: the replica has a
// higher one, or leads itself in this one. ErrDiverged: what must be taken back can't be.
func (r *Replica) Replay(ctx context.Context, t Tail) (matched bool, hint Position, err error) {
	if s := r.State(); len(t.Records) == 0 && s.LeaderEpoch == t.Epoch && !s.Leads() && t.Previous == s.End() && s.Committed >= min(t.Committed, t.end()) {
		return true, hint, r.Damage()
	}
	err = r.update(ctx, func(tx *sql.Tx, s *State) error {
		if err := follow(s, t.Epoch); err != nil {
			return err
		}
		if err := r.cutTail(ctx, tx, s, t); err != nil {
			return err
		}
		matched, hint, err = agrees(ctx, tx, s, t.Previous)
		if err != nil || !matched {
			return err
		}
		for _, record := range t.Records {
			if err := r.replayOne(ctx, tx, s, record); err != nil {
				return err
			}
		}
		s.Committed = max(s.Committed, min(t.Committed, t.end()))
		return nil
	})
	if err != nil {
		return false, Position{}, fmt.Errorf("replicate region %s: %w", r.region, err)
	}
	return matched, hint, nil
}

// follow has the replica follow the leader of an epoch.
func follow(s *State, epoch uint64) error {
	if epoch < s.LeaderEpoch && !broken("epoch") {
		return fmt.Errorf("%w: %d, the replica has %d", ErrStaleEpoch, epoch, s.LeaderEpoch)
	}
	if s.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
		if epoch == s.LeaderEpoch {
			return fmt.Errorf("%w: the replica leads in epoch %d itself", ErrStaleEpoch, epoch)
		}
		s.Role, s.Demoted = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER, false
	}
	s.LeaderEpoch = epoch
	return nil
}

// cutTail takes back what the replica has behind the start of the leader's epoch that isn't of this epoch. Whatever comes
// late of an earlier request of the same leader finds nothing to take back.
func (r *Replica) cutTail(ctx context.Context, tx *sql.Tx, s *State, t Tail) error {
	if s.StoredSeq <= t.EpochStart {
		return nil
	}
	epoch, err := epochAt(ctx, tx, t.EpochStart+1)
	if err != nil || epoch == t.Epoch {
		return err
	}
	return r.cut(ctx, tx, s, t.EpochStart)
}

// agrees reports whether the replica has the record of a position, and where to look if it doesn't.
func agrees(ctx context.Context, tx *sql.Tx, s *State, p Position) (matched bool, hint Position, err error) {
	if p.Seq > s.StoredSeq {
		return false, s.End(), nil
	}
	epoch, err := epochAt(ctx, tx, p.Seq)
	if err != nil || epoch == p.Epoch {
		return err == nil, Position{}, err
	}
	hint, err = commonAt(ctx, tx, p)
	return false, hint, err
}

// replayOne stores a record of the leader, unless the replica has it.
func (r *Replica) replayOne(ctx context.Context, tx *sql.Tx, s *State, record *tsdbpb.LogRecord) error {
	if record.GetSeq() <= s.StoredSeq {
		epoch, err := epochAt(ctx, tx, record.GetSeq())
		if err != nil || epoch == record.GetEpoch() {
			return err
		}
		if err := r.cut(ctx, tx, s, record.GetSeq()-1); err != nil {
			return err
		}
	}
	return r.storeRecord(ctx, tx, s, record, true)
}
