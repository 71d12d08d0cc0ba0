package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockName is the file that marks a data folder as taken. It names the member whose folder it is, for ever, and
// the last process that ran it.
const lockName = "metasrv.lock"

// dataDir is a data folder that only this process uses.
type dataDir struct {
	lock *os.File
}

// openDataDir creates the folder where it is missing and takes it. The errors name who has it.
func openDataDir(path, memberID string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, wrong("data-dir", "create the folder: %v", err)
	}
	name := filepath.Join(path, lockName)
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the operator chose the folder
	if err != nil {
		return nil, wrong("data-dir", "%s can't be written: %v", path, err)
	}
	if err := takeLock(lock, path, memberID); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &dataDir{lock: lock}, nil
}

func takeLock(lock *os.File, path, memberID string) error {
	flockErr := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a descriptor fits
	content, err := io.ReadAll(lock)
	if err != nil {
		return wrong("data-dir", "read %s: %v", lock.Name(), err)
	}
	owner, pid := parseLock(string(content))
	switch {
	case errors.Is(flockErr, syscall.EWOULDBLOCK):
		return wrong("data-dir", "%s is in use by process %s (member %s), which holds %s; stop it first, or name another folder",
			path, pid, owner, lock.Name())
	case flockErr != nil:
		return wrong("data-dir", "lock %s: %v; the folder must be on a local disk", lock.Name(), flockErr)
	case owner != "" && owner != memberID:
		return wrong("data-dir", "%s is the folder of member %s, but --node-id is %s: name that member's own folder, or an empty one",
			path, owner, memberID)
	}
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("write %s: %w", lock.Name(), err)
	}
	if _, err := lock.WriteAt(fmt.Appendf(nil, "member %s\npid %d\n", memberID, os.Getpid()), 0); err != nil {
		return fmt.Errorf("write %s: %w", lock.Name(), err)
	}
	return nil
}

func parseLock(content string) (owner, pid string) {
	for line := range strings.Lines(content) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "member":
			owner = value
		case "pid":
			pid = value
		}
	}
	return owner, pid
}

// close gives the folder back. The file stays: it says whose folder this is.
func (d *dataDir) close() error { return d.lock.Close() }
