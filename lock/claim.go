package lock

import (
	"encoding/binary"
	"slices"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// claim takes the last place among the claims on a name, unless the holder has one already.
func claim(tx state.Tx, cmd *storagepb.Claim) (*storagepb.ClaimResult, error) {
	if err := validateClaim(cmd); err != nil {
		return nil, err
	}
	key := Key(cmd.Kind, cmd.Name)
	claims, err := read(tx, key)
	if err != nil {
		return nil, err
	}
	if at := find(claims, cmd.Holder); at >= 0 && cmd.Holder != 0 {
		return resultAt(claims, at), nil
	}
	if cmd.NoWait && len(claims.Claims) > 0 {
		return nil, metasrv.ErrNotHeld.With("%q is held by %s", cmd.Name, describe(tx, claims.Claims[0].Holder))
	}
	if len(claims.Claims) >= maxClaims {
		return nil, metasrv.ErrTooManyClaims.With("%d claims on %q are there already", len(claims.Claims), cmd.Name)
	}
	holder, err := claimant(tx, cmd)
	if err != nil {
		return nil, err
	}
	claims.Claims = append(claims.Claims, &storagepb.ClaimRecord{Holder: holder, Value: cmd.Value, ClaimedAtMs: uint64(tx.Now())})
	tx.Put(claimKey(holder, key), []byte{})
	if err := store(tx, key, claims); err != nil {
		return nil, err
	}
	return resultAt(claims, len(claims.Claims)-1), nil
}

func validateClaim(cmd *storagepb.Claim) error {
	if err := validateKind(cmd.Kind); err != nil {
		return err
	}
	if err := ValidateName(cmd.Name); err != nil {
		return err
	}
	return validateValue(cmd.Value)
}

// claimant returns the holder that claims: a new one where none is named.
func claimant(tx state.Tx, cmd *storagepb.Claim) (uint64, error) {
	if cmd.Holder == 0 {
		holder, _, err := addHolder(tx, &storagepb.HolderRecord{TtlMs: cmd.TtlMs, Name: cmd.HolderName, OfClaim: true})
		return holder, err
	}
	if _, err := Holder(tx, cmd.Holder); err != nil {
		return 0, err
	}
	prefix, has := holderKey(cmd.Holder)+"/", 0
	for range tx.Ascend(prefix, end(prefix)) {
		if has++; has == maxHolderClaims {
			return 0, metasrv.ErrTooManyClaims.With("holder %d has %d claims already", cmd.Holder, has)
		}
	}
	return cmd.Holder, nil
}

// withdraw takes a claim back, and does nothing where there is none.
func withdraw(tx state.Tx, cmd *storagepb.Withdraw) (*storagepb.ClaimResult, error) {
	if err := validateKind(cmd.Kind); err != nil {
		return nil, err
	}
	key := Key(cmd.Kind, cmd.Name)
	result := &storagepb.ClaimResult{}
	if _, claimed := tx.Get(claimKey(cmd.Holder, key)); !claimed {
		return result, nil
	}
	record, err := Holder(tx, cmd.Holder)
	if err != nil {
		return nil, err
	}
	if record.OfClaim {
		return result, removeHolders(tx, map[uint64]bool{cmd.Holder: true}, []uint64{cmd.Holder})
	}
	tx.Delete(claimKey(cmd.Holder, key))
	return result, removeClaims(tx, key, func(c *storagepb.ClaimRecord) bool { return c.Holder == cmd.Holder })
}

// proclaim changes the value of a claim that holds its name under a token.
func proclaim(tx state.Tx, cmd *storagepb.Proclaim) (*storagepb.ClaimResult, error) {
	if err := validateKind(cmd.Kind); err != nil {
		return nil, err
	}
	if err := validateValue(cmd.Value); err != nil {
		return nil, err
	}
	key := Key(cmd.Kind, cmd.Name)
	claims, err := read(tx, key)
	if err != nil {
		return nil, err
	}
	if len(claims.Claims) == 0 || claims.Claims[0].Holder != cmd.Holder || claims.Claims[0].FencingToken != cmd.FencingToken {
		return nil, metasrv.ErrNotHeld.With("holder %d does not hold %q under token %d", cmd.Holder, cmd.Name, cmd.FencingToken)
	}
	claims.Claims[0].Value = cmd.Value
	if err := store(tx, key, claims); err != nil {
		return nil, err
	}
	return resultAt(claims, 0), nil
}

// removeClaims removes claims on what a key names.
func removeClaims(tx state.Tx, key string, gone func(*storagepb.ClaimRecord) bool) error {
	claims, err := read(tx, key)
	if err != nil {
		return err
	}
	claims.Claims = slices.DeleteFunc(claims.Claims, gone)
	return store(tx, key, claims)
}

// store writes the claims on a name. One that has become the first gets its token, and its holder's time begins anew.
func store(tx state.Tx, key string, claims *storagepb.ClaimsRecord) error {
	if len(claims.Claims) == 0 {
		tx.Delete(key)
		return nil
	}
	if first := claims.Claims[0]; first.FencingToken == 0 {
		// The revision of a command is that of the state when it has been applied.
		first.FencingToken = tx.Revision() + 1
		record, err := Holder(tx, first.Holder)
		if err != nil {
			return err
		}
		renew(tx, first.Holder, record)
	}
	tx.Put(key, state.Encode(claims))
	return nil
}

func resultAt(claims *storagepb.ClaimsRecord, at int) *storagepb.ClaimResult {
	return &storagepb.ClaimResult{Claim: claims.Claims[at], Ahead: uint64(at)} //nolint:gosec // an index
}

func find(claims *storagepb.ClaimsRecord, holder uint64) int {
	return slices.IndexFunc(claims.Claims, func(c *storagepb.ClaimRecord) bool { return c.Holder == holder })
}

func putCount(tx state.Tx, n uint64) { tx.Put(holderCountKey, binary.BigEndian.AppendUint64(nil, n)) }
