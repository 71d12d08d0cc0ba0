package lock

import (
	"strings"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func openHolder(tx state.Tx, cmd *storagepb.OpenHolder) (*storagepb.HolderResult, error) {
	holder, record, err := addHolder(tx, &storagepb.HolderRecord{TtlMs: cmd.TtlMs, Name: cmd.Name})
	if err != nil {
		return nil, err
	}
	return &storagepb.HolderResult{Holder: holder, Record: record}, nil
}

// addHolder gives a holder its id.
func addHolder(tx state.Tx, record *storagepb.HolderRecord) (uint64, *storagepb.HolderRecord, error) {
	if err := ValidateTTL(record.TtlMs); err != nil {
		return 0, nil, err
	}
	if err := validateHolderName(record.Name); err != nil {
		return 0, nil, err
	}
	open := state.Peek(tx, holderCountKey, 0)
	if open >= maxHolders {
		return 0, nil, metasrv.ErrTooManyClaims.With("%d holders of locks and candidacies are there; they end when they are closed, or not renewed for their ttl", open)
	}
	state.Take(tx, holderCountKey, 0, 1)
	holder := state.Next(tx, holderSequenceKey, 1)
	record.RenewedAtMs = uint64(tx.Now())
	tx.Put(holderKey(holder), state.Encode(record))
	return holder, record, nil
}

func keepHolder(tx state.Tx, cmd *storagepb.KeepHolder) (*storagepb.HolderResult, error) {
	record, err := Holder(tx, cmd.Holder)
	if err != nil {
		return nil, err
	}
	renew(tx, cmd.Holder, record)
	return &storagepb.HolderResult{Holder: cmd.Holder, Record: record}, nil
}

func renew(tx state.Tx, holder uint64, record *storagepb.HolderRecord) {
	record.RenewedAtMs = uint64(tx.Now())
	tx.Put(holderKey(holder), state.Encode(record))
}

// closeHolder does nothing where the holder is gone.
func closeHolder(tx state.Tx, cmd *storagepb.CloseHolder) (*storagepb.HolderResult, error) {
	result := &storagepb.HolderResult{Holder: cmd.Holder}
	if _, open := tx.Get(holderKey(cmd.Holder)); !open {
		return result, nil
	}
	return result, removeHolders(tx, map[uint64]bool{cmd.Holder: true}, []uint64{cmd.Holder})
}

// removeHolders removes holders with their claims; gone and order name the same ones. Who waited behind several of them
// takes over once, behind all of them: nobody gets a token in passing.
func removeHolders(tx state.Tx, gone map[uint64]bool, order []uint64) error {
	for _, holder := range order {
		prefix := holderKey(holder) + "/"
		for key := range tx.Ascend(prefix, end(prefix)) {
			claims := strings.TrimPrefix(key, prefix)
			tx.Delete(key)
			if err := removeClaims(tx, claims, func(c *storagepb.ClaimRecord) bool { return gone[c.Holder] }); err != nil {
				return err
			}
		}
		tx.Delete(holderKey(holder))
	}
	left := state.Peek(tx, holderCountKey, 0) - uint64(len(order))
	putCount(tx, left)
	return nil
}
