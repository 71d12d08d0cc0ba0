package lock

import (
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// expireHolders removes those of the named holders whose time is over. The time since which the metasrv leader leads is
// part of the plan, not of the command: leader time stands still while there is no leader, so a holder that is silent for
// its time by leader time has been silent for longer.
func expireHolders(tx state.Tx, cmd *storagepb.ExpireHolders) (*storagepb.ExpireHoldersResult, error) {
	gone, order := make(map[uint64]bool, len(cmd.Holders)), make([]uint64, 0, len(cmd.Holders))
	for _, use := range cmd.Holders {
		record, err := Holder(tx, use.Holder)
		if err != nil || gone[use.Holder] || record.RenewedAtMs != use.RenewedAtMs || !isOver(record, tx.Now()) {
			continue
		}
		gone[use.Holder] = true
		order = append(order, use.Holder)
	}
	if len(order) == 0 {
		return &storagepb.ExpireHoldersResult{}, nil
	}
	return &storagepb.ExpireHoldersResult{Expired: uint64(len(order))}, removeHolders(tx, gone, order)
}

func isOver(record *storagepb.HolderRecord, now state.LeaderTime) bool {
	return uint64(now) > record.RenewedAtMs+record.TtlMs
}

// ExpiredHolders returns holders that were not renewed for their time, at most as many as one command takes. since is the
// leader time at which the present metasrv leader took over: silence before that says nothing, for nobody was there to
// hear a renewal.
func ExpiredHolders(v state.View, since, now state.LeaderTime) []*storagepb.HolderUse {
	var expired []*storagepb.HolderUse
	for holder, record := range Holders(v) {
		if isOver(record, now) && uint64(now) > uint64(since)+record.TtlMs {
			expired = append(expired, &storagepb.HolderUse{Holder: holder, RenewedAtMs: record.RenewedAtMs})
		}
		if len(expired) == maxExpiriesAtOne {
			break
		}
	}
	return expired
}
