package lock

import (
	"strconv"
	"strings"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// The records of this package. Under a holder's key and a slash is one key more for each of its claims, so that its end
// finds them.
const (
	LockPrefix     = "lock/"
	ElectionPrefix = "election/"
	HolderPrefix   = "holder/"

	holderSequenceKey = "seq/holder"
	holderCountKey    = "seq/holders"
)

// prefixes has the prefix of each kind of claims.
var prefixes = map[storagepb.ClaimKind]string{
	storagepb.ClaimKind_CLAIM_KIND_LOCK:     LockPrefix,
	storagepb.ClaimKind_CLAIM_KIND_ELECTION: ElectionPrefix,
}

// Key returns the key of the claims on a name.
func Key(kind storagepb.ClaimKind, name []byte) string { return prefixes[kind] + string(name) }

func holderKey(holder uint64) string { return state.IDKey(HolderPrefix, holder) }

func claimKey(holder uint64, claims string) string { return holderKey(holder) + "/" + claims }

// end returns the first key behind those with a prefix that ends in a slash.
func end(prefix string) string { return prefix[:len(prefix)-1] + "0" }

// parseHolderKey returns the holder whose record a key names; false for the keys of its claims.
func parseHolderKey(key string) (uint64, bool) {
	id := strings.TrimPrefix(key, HolderPrefix)
	if len(id) != 16 {
		return 0, false
	}
	holder, err := strconv.ParseUint(id, 16, 64)
	return holder, err == nil
}
