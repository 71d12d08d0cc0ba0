package store

import (
	"errors"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// The errors that callers tell apart. They are wrapped with the region or the file.
var (
	// ErrNotFound: the replica isn't here.
	ErrNotFound = errors.New("replica not found")
	// ErrExists: another replica of the region is here, or the same one with another definition.
	ErrExists = errors.New("region exists")
	// ErrDamaged: the replica's file can't be read. Restore it, or drop the replica.
	ErrDamaged = errors.New("replica file is damaged")
	// ErrFormat: the replica's file is of a version that this program doesn't read. Another version of the program does.
	ErrFormat = errors.New("replica file is of another version")
	// ErrStaleEpoch: the sender's leader_epoch is below the replica's.
	ErrStaleEpoch = errors.New("leader_epoch is too old")
	// ErrDiverged: the replica has writes that the region leader doesn't have, and that can't be taken back. A copy of the
	// leader's replica helps.
	ErrDiverged = errors.New("replica has diverged from the region leader")
	// errOutdatedCopy: the replica that a copy is to replace has more than the copy.
	errOutdatedCopy = errors.New("copy is outdated")
	// ErrOtherCluster: the folder belongs to another cluster.
	ErrOtherCluster = errors.New("data folder of another cluster")
)

// isDamage reports whether the file itself is wrong, which no retry mends.
func isDamage(err error) bool {
	if errors.Is(err, ErrDamaged) {
		return true
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	primary := e.Code() & 0xff
	return primary == sqlitelib.SQLITE_CORRUPT || primary == sqlitelib.SQLITE_NOTADB
}
