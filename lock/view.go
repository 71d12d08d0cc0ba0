package lock

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Holder returns a holder, or ErrHolderNotFound.
func Holder(v state.View, holder uint64) (*storagepb.HolderRecord, error) {
	value, open := v.Get(holderKey(holder))
	if !open {
		return nil, metasrv.ErrHolderNotFound.With("holder %d is unknown, or was not renewed in time", holder)
	}
	record := &storagepb.HolderRecord{}
	if err := state.Decode(value, record); err != nil {
		return nil, damaged(holderKey(holder), err)
	}
	return record, nil
}

// Holders iterates the holders by id.
func Holders(v state.View) iter.Seq2[uint64, *storagepb.HolderRecord] {
	return func(yield func(uint64, *storagepb.HolderRecord) bool) {
		for key, value := range v.Ascend(HolderPrefix, end(HolderPrefix)) {
			holder, is := parseHolderKey(key)
			if !is {
				continue
			}
			record := &storagepb.HolderRecord{}
			if state.Decode(value, record) == nil && !yield(holder, record) {
				return
			}
		}
	}
}

// AnyHolder reports whether there are holders.
func AnyHolder(v state.View) bool {
	for range v.Ascend(HolderPrefix, end(HolderPrefix)) {
		return true
	}
	return false
}

// Claims returns the claims on a name in their order: the first one holds it.
func Claims(v state.View, kind storagepb.ClaimKind, name []byte) ([]*storagepb.ClaimRecord, error) {
	claims, err := read(v, Key(kind, name))
	return claims.GetClaims(), err
}

// Place returns the claim of a holder on a name and how many are before it. ErrNotHeld: there is none.
func Place(v state.View, kind storagepb.ClaimKind, name []byte, holder uint64) (*storagepb.ClaimRecord, int, error) {
	claims, err := read(v, Key(kind, name))
	if err != nil {
		return nil, 0, err
	}
	at := find(claims, holder)
	if at < 0 {
		return nil, 0, metasrv.ErrNotHeld.With("holder %d has no claim on %q: it was withdrawn, or the holder was not renewed in time", holder, name)
	}
	return claims.Claims[at], at, nil
}

// Named is a name with the claims on it.
type Named struct {
	Name   []byte
	Claims []*storagepb.ClaimRecord
}

// All iterates the names of a kind that begin with a prefix.
func All(v state.View, kind storagepb.ClaimKind, prefix []byte) iter.Seq2[Named, error] {
	return func(yield func(Named, error) bool) {
		whole := prefixes[kind]
		for key := range v.Ascend(whole+string(prefix), end(whole)) {
			name := []byte(key[len(whole):])
			if !bytes.HasPrefix(name, prefix) {
				return
			}
			claims, err := read(v, key)
			if !yield(Named{Name: name, Claims: claims.GetClaims()}, err) {
				return
			}
		}
	}
}

func read(v state.View, key string) (*storagepb.ClaimsRecord, error) {
	claims := &storagepb.ClaimsRecord{}
	value, _ := v.Get(key)
	if err := state.Decode(value, claims); err != nil {
		return nil, damaged(key, err)
	}
	return claims, nil
}

// describe names a holder for people.
func describe(v state.View, holder uint64) string {
	record, err := Holder(v, holder)
	if err != nil || record.Name == "" {
		return fmt.Sprintf("holder %d", holder)
	}
	return fmt.Sprintf("holder %d (%s)", holder, record.Name)
}

func damaged(key string, err error) error {
	return metasrv.ErrInternal.With("%s: %v", key, err)
}
