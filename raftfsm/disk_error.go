package raftfsm

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrDamaged: a file of the data folder is not what was written to it.
var ErrDamaged = errors.New("damaged")

// replaceMember is what to do where the data of a member is of no use any more.
const replaceMember = "remove this member from the cluster and let it join again with an empty folder under a new id"

// damaged returns the error for a file that holds something else than what was written to it.
func damaged(path, format string, args ...any) error {
	return fmt.Errorf("%s is %w: %s. The other members have its data: %s; keep the old folder until that has succeeded",
		path, ErrDamaged, fmt.Sprintf(format, args...), replaceMember)
}

// guarded runs a call that reads a mapped file. What bbolt takes for impossible, and a page that the disk does not
// give, are panics there; here they are damage.
func guarded(path string, call func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(path, "%v", p)
		}
	}()
	return call()
}

// isDiskFull reports whether a write failed for lack of space and changed nothing that counts, so it may be tried again.
// bbolt returns the error of a write as a PathError, that of growing the file as text, and that of fdatasync bare: after
// a failed sync nothing is known of the pages, whatever the reason, and it is never tried again.
func isDiskFull(err error) bool {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Op != "sync" && noSpace(pathErr.Err)
	}
	const growing = "file resize error: "
	return err != nil && strings.Contains(err.Error(), growing) && saysNoSpace(err)
}

// saysNoSpace is noSpace for an error that may be text.
func saysNoSpace(err error) bool {
	return err != nil && (strings.Contains(err.Error(), syscall.ENOSPC.Error()) || strings.Contains(err.Error(), syscall.EDQUOT.Error()))
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// isAnswer reports whether an error of a store is an answer rather than a failure.
func isAnswer(err error) bool {
	return errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, raftboltdb.ErrKeyNotFound) || errors.Is(err, berrors.ErrDatabaseNotOpen)
}

// openError explains the usual reasons why a file of the data folder can't be opened.
func openError(path string, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrDamaged):
		return err
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s is locked: another metasrv runs on the data folder %s", path, filepath.Dir(path))
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return damaged(path, "%v", err)
	case saysNoSpace(err):
		return fmt.Errorf("open %s: %w: %w", path, (*disk)(nil).fullError(), err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}
