package lock

import (
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// Bounds of what is claimed. They are part of what the commands mean: other bounds are another command version.
const (
	MinTTL = 500 * time.Millisecond
	MaxTTL = 24 * time.Hour
	// MaxNameBytes bounds names, of locks and elections and of holders.
	MaxNameBytes = 1 << 10
	// MaxValueBytes bounds what a candidate proclaims.
	MaxValueBytes = 64 << 10

	maxHolders       = 100_000
	maxClaims        = 10_000 // on a name
	maxHolderClaims  = 10_000
	maxExpiriesAtOne = 256
)

// ValidateTTL returns ErrInvalidArgument where holders can't have a time to live.
func ValidateTTL(ms uint64) error {
	if ms < uint64(MinTTL.Milliseconds()) || ms > uint64(MaxTTL.Milliseconds()) {
		return metasrv.InvalidArgument("ttl_ms", "%d is not between %d and %d", ms, MinTTL.Milliseconds(), MaxTTL.Milliseconds())
	}
	return nil
}

// ValidateName returns ErrInvalidArgument where nothing can have a name.
func ValidateName(name []byte) error {
	switch {
	case len(name) == 0:
		return metasrv.InvalidArgument("name", "is empty")
	case len(name) > MaxNameBytes:
		return metasrv.InvalidArgument("name", "has %d bytes, more than %d", len(name), MaxNameBytes)
	}
	return nil
}

func validateHolderName(name string) error {
	if len(name) > MaxNameBytes {
		return metasrv.InvalidArgument("holder_name", "has %d bytes, more than %d", len(name), MaxNameBytes)
	}
	return nil
}

func validateValue(value []byte) error {
	if len(value) > MaxValueBytes {
		return metasrv.InvalidArgument("value", "has %d bytes, more than %d", len(value), MaxValueBytes)
	}
	return nil
}

func validateKind(kind storagepb.ClaimKind) error {
	if prefixes[kind] == "" {
		return metasrv.InvalidArgument("kind", "%s names no kind of claims", kind)
	}
	return nil
}
