package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// space says what may still be written to the disk of the data folder.
type space int32

const (
	// spaceEnough: everything.
	spaceEnough space = iota
	// spaceLow: what clients ask for is refused. Duties and take-overs go on, in the space that was kept for them.
	spaceLow
	// spaceOut: nothing is proposed any more, so that a metasrv leader stays one and answers reads.
	spaceOut
)

const (
	// spacePeriod is how often the free space is looked at.
	spacePeriod = time.Second
	// reserveShare of the floor is kept for what isn't refused below the floor.
	reserveShare = 8
	// leastRoom must be free before a file system that has refused a write is taken to have space again, whatever the floor.
	leastRoom = 1 << 20
)

// disk watches the free space of the data folder.
type disk struct {
	member, dir string
	// floor is the free space in bytes below which writes are refused, 0 for none.
	floor uint64
	// free returns the bytes that the member may still use.
	free func(dir string) (uint64, error)
	log  *slog.Logger
	// gone is told that the folder is no longer there, where it is not nil.
	gone func(error)

	level atomic.Int32
	bytes atomic.Uint64

	mu sync.Mutex
	// refused is when the file system last refused a write, zero since there is space again. statfs needn't show that,
	// such as for a quota.
	refused time.Time
	// unknown: the file system did not say at the last look how much is free.
	unknown bool
	// changed is closed and replaced when the level changes.
	changed chan struct{}
}

func newDisk(member, dir string, floor uint64, log *slog.Logger) *disk {
	return &disk{member: member, dir: dir, floor: floor, free: freeSpace, log: log, changed: make(chan struct{})}
}

// freeSpace returns the bytes that are left for users on the file system of a folder.
func freeSpace(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // a block size is positive
}

// run looks at the free space until ctx ends.
func (d *disk) run(ctx context.Context) {
	ticker := time.NewTicker(spacePeriod)
	defer ticker.Stop()
	for {
		d.look(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look measures the free space and sets the level by it.
func (d *disk) look(now time.Time) {
	free, err := d.free(d.dir)
	if errors.Is(err, fs.ErrNotExist) && d.gone != nil {
		// What it goes on to write is in files without a name, and lost when it ends.
		d.gone(fmt.Errorf("the data folder %s was removed or renamed while member %s ran; put it back if you have it and start the member again: %w",
			d.dir, d.member, err))
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.unknown
	if d.unknown = err != nil; d.unknown {
		if !was {
			d.log.Warn("the free space of the data folder is unknown", "error", err)
		}
		return
	}
	d.bytes.Store(free)
	switch {
	case free < d.floor/reserveShare, now.Sub(d.refused) < spacePeriod, free < leastRoom && !d.refused.IsZero():
		d.set(spaceOut)
		return
	case free < d.floor:
		d.set(spaceLow)
	default:
		d.set(spaceEnough)
	}
	d.refused = time.Time{}
}

// ranOut notes that the file system has refused a write.
func (d *disk) ranOut() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = time.Now()
	d.set(spaceOut)
}

// set changes the level; d.mu is held.
func (d *disk) set(to space) {
	was := space(d.level.Swap(int32(to)))
	if was == to {
		return
	}
	close(d.changed)
	d.changed = make(chan struct{})
	switch {
	case to == spaceEnough:
		d.log.Info("the data folder has space again, writes are taken", "data_dir", d.dir, "free_bytes", d.bytes.Load())
	case was == spaceEnough:
		d.log.Error("the disk of the data folder is full: writes are refused, reads go on; make space, no restart is needed",
			"data_dir", d.dir, "free_bytes", d.bytes.Load(), "min_free_bytes", d.floor)
	}
}

// space returns what may be written.
func (d *disk) space() space {
	if d == nil {
		return spaceEnough
	}
	return space(d.level.Load())
}

// ample reports whether there is so much space that a metasrv leader will not have to hand over soon.
func (d *disk) ample() bool {
	return d.space() == spaceEnough && d.bytes.Load() >= d.floor+d.floor/reserveShare
}

// out reports whether nothing may be written.
func (d *disk) out() bool { return d.space() == spaceOut }

// refusing returns ErrDiskFull while the file system refuses writes, not only this member.
func (d *disk) refusing() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused.IsZero() {
		return nil
	}
	return d.fullError()
}

// full returns ErrDiskFull if less than an amount of space is left, nil otherwise.
func (d *disk) full(from space) error {
	if d.space() >= from {
		return d.fullError()
	}
	return nil
}

func (d *disk) fullError() *metasrv.Error {
	if d == nil { // the member starts
		return metasrv.ErrDiskFull.With("the disk of the data folder is full; make space there, then start the member again")
	}
	return metasrv.ErrDiskFull.With("the disk of member %s is full: %s has %d MiB left, and %d MiB must stay free (--min-free-disk); "+
		"make space there, writes go on by themselves then", d.member, d.dir, d.bytes.Load()>>20, d.floor>>20)
}

// await waits until something may be written again; false if stop was closed first.
func (d *disk) await(stop <-chan struct{}) bool {
	for {
		d.mu.Lock()
		changed := d.changed
		d.mu.Unlock()
		if !d.out() {
			return true
		}
		select {
		case <-changed:
		case <-stop:
			return false
		}
	}
}

// requireSpace returns ErrDiskFull if the disk, or those of a majority, have no space for a proposal. What clients ask for is refused while there
// is still some for duties and for what members say of themselves.
func (n *Node) requireSpace(proposal state.Proposal) error {
	from := spaceLow
	if proposal.PlannedTerm != 0 || proposal.Kind == storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER {
		from = spaceOut
	}
	if err := n.disk.full(from); err != nil {
		return err
	}
	return n.majoritySpace.full(from)
}
