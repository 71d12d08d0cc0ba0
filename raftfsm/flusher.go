package raftfsm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metasrv/metasrv"
)

var errFlusherStopped = errors.New("the flusher has stopped")

// flusher writes the state behind to the image: one cut after the other, by time, by volume and after bursts. The log is the
// durability; the image only bounds how much of it is replayed at a start, and what of it may be dropped.
type flusher struct {
	fsm *fsm
	// timing says when a cut is written.
	timing Timing
	fail   func(error)
	watch  *watchdog
	disk   *disk
	// slow makes a write, see Config.Disk.
	slow func(write func() error) error
	// noted is called behind each cut, where it is not nil.
	noted func()

	// mu is held while a cut is written.
	mu    diskLock
	image *image
	// closed: the image is no longer mapped, and the log may not be.
	closed bool
	// err is why a cut failed in a way that leaves unknown what is on the disk. Then none is written any more: a failed
	// sync may have lost pages, and the keys of its cut are in no later one. A full disk is no such reason.
	err error
	// broken is closed when err is set.
	broken chan struct{}
	// flushed is the index that the image has, size its bytes on disk.
	flushed atomic.Uint64
	size    atomic.Int64

	// lacking is how many bytes of entries the image lacks.
	lacking atomic.Int64
	wake    chan struct{}
	stop    chan struct{}
	stopped sync.WaitGroup
	// over is set while dirtyLimit is reached; room is closed and replaced when a flush has made room.
	roomMu sync.Mutex
	room   chan struct{}
	over   atomic.Bool
	// behind is set while dirtyBound is reached.
	behind atomic.Bool
}

func newFlusher(f *fsm, img *image, timing Timing, fail func(error)) *flusher {
	fl := &flusher{
		fsm: f, image: img, timing: timing, fail: fail, slow: atOnce, mu: make(diskLock, 1),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), room: make(chan struct{}), broken: make(chan struct{}),
	}
	fl.flushed.Store(f.current.index())
	fl.size.Store(img.bytes())
	f.flusher = fl
	return fl
}

func (fl *flusher) start() { fl.stopped.Go(fl.run) }

func (fl *flusher) run() {
	look := time.NewTicker(min(flushLook, fl.timing.Flush))
	defer look.Stop()
	pace := flushPace{interval: fl.timing.Flush, flushed: time.Now()}
	for {
		select {
		case now := <-look.C:
			if !pace.due(int(fl.lacking.Load()), now) {
				continue
			}
		case <-fl.wake:
			pace.flushed = time.Now()
		case <-fl.stop:
			return
		}
		if fl.disk.out() {
			pace.missed()
			continue
		}
		switch err := fl.flush(); {
		case errors.Is(err, metasrv.ErrDiskFull):
			pace.missed()
		case err != nil:
			fl.fail(err)
			return
		}
	}
}

// What comes while a cut is written waits for the next one, so the disk is too slow when that is more than the cut itself.

// dirtyBound is how many bytes of entries the image may lack before the metasrv leader refuses the writes of clients, which may
// come again later.
func (fl *flusher) dirtyBound() int { return fl.timing.FlushBytes + fl.timing.FlushBytes/2 }

// dirtyLimit is how many it may lack before entries wait, on any member.
func (fl *flusher) dirtyLimit() int { return 2 * fl.timing.FlushBytes }

// written tells what the image lacks.
func (fl *flusher) written(u unflushed) {
	fl.lacking.Store(int64(u.bytes))
	if !u.tooMuch(fl.timing) {
		return
	}
	fl.behind.Store(u.bytes >= fl.dirtyBound())
	if u.bytes >= fl.dirtyLimit() {
		fl.over.Store(true)
	}
	select {
	case fl.wake <- struct{}{}:
	default:
	}
}

// throttle waits while dirtyLimit is reached: the one case in which an entry waits for the disk. It bounds the memory
// that unflushed changes take. What the leader proposes itself at dirtyBound has room up to here.
func (fl *flusher) throttle() {
	for fl.over.Load() {
		fl.roomMu.Lock()
		room := fl.room
		fl.roomMu.Unlock()
		if !fl.over.Load() {
			return
		}
		select {
		case <-room:
		case <-fl.broken: // nobody makes room any more, and the member is about to end
			return
		case <-fl.stop:
			return
		}
	}
}

// flush writes one cut. ErrDiskFull: the image is as before, and the keys of the cut are in the next one. Any other error
// is final.
func (fl *flusher) flush() error {
	wrote, err := fl.writeCut()
	if wrote && fl.noted != nil {
		fl.noted()
	}
	return err
}

// writeCut is flush; false where there was nothing to write.
func (fl *flusher) writeCut() (bool, error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.err != nil {
		return false, fl.err
	}
	a, keys, work := fl.fsm.cut()
	fl.makeRoom()
	if a.index() == fl.flushed.Load() {
		return false, nil
	}
	if err := fl.write(a, keys, work); err != nil {
		return false, err
	}
	fl.flushed.Store(a.index())
	fl.size.Store(fl.image.bytes())
	return true, nil
}

// write brings a cut to the disk.
func (fl *flusher) write(a *applied, keys []string, work unflushed) error {
	path := fl.image.db.Path()
	call := fl.watch.begin("the flush to "+path, flushTime(len(keys), work.bytes))
	err := fl.slow(func() error { return fl.image.write(brokenCut(fl.fsm, a), keys) })
	call.end()
	switch {
	case err == nil:
		return nil
	case isDiskFull(err):
		fl.disk.ranOut()
		fl.fsm.putBack(keys, work)
		return fmt.Errorf("write %s at index %d: %w", path, a.index(), fl.disk.fullError())
	}
	fl.err = fmt.Errorf("write %s at index %d: %w", path, a.index(), err)
	close(fl.broken)
	return fl.err
}

// flushTime is how much longer than any call the flush of a large cut may take: a page a key, at 4 MB/s.
func flushTime(keys, bytes int) time.Duration {
	const pageBytes, bytesPerSecond = 4 << 10, 4 << 20
	return time.Duration(keys*pageBytes+bytes) * time.Second / bytesPerSecond
}

// makeRoom lets the entries go on that wait for the disk.
func (fl *flusher) makeRoom() {
	fl.over.Store(false)
	fl.behind.Store(false)
	fl.roomMu.Lock()
	defer fl.roomMu.Unlock()
	close(fl.room)
	fl.room = make(chan struct{})
}

// flushTo returns when the image has reached an index.
func (fl *flusher) flushTo(index uint64) error {
	for fl.flushed.Load() < index {
		select {
		case <-fl.stop:
			return errFlusherStopped
		default:
		}
		err := fl.flush()
		if errors.Is(err, metasrv.ErrDiskFull) {
			return err
		}
		if err != nil {
			fl.fail(err)
			return err
		}
	}
	return nil
}

// replace runs swap, which exchanges the image file, while nothing is written; the image has the state at
// index then.
func (fl *flusher) replace(swap func(old *image) (*image, uint64, error)) error {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	img, index, err := swap(fl.image)
	if err != nil {
		return err
	}
	fl.image = img
	fl.flushed.Store(index)
	fl.size.Store(img.bytes())
	return nil
}

// close ends the loop, writes a last cut unless the member has failed, and closes the image.
func (fl *flusher) close(failed bool) error {
	close(fl.stop)
	fl.stopped.Wait()
	var err error
	if !failed {
		err = fl.flush()
	}
	if errors.Is(err, metasrv.ErrDiskFull) {
		err = nil // the log has what the image lacks
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.closed = true
	return errors.Join(err, fl.image.close())
}
