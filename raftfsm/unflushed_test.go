package raftfsm

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFlushPace(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name string
		// lacking has what the image lacks at each look, if nothing is flushed before.
		lacking func(look int) int
		// flushed is the look at which a cut is due, the interval being 40.
		flushed int
	}{
		{"nothing", func(int) int { return 0 }, 40},
		{"a steady load", func(look int) int { return 5 * mb * look }, 40},
		{"a load that grows", func(look int) int { return mb * look * look }, 40},
		{"a small burst", func(int) int { return mb }, 40},
		{"a burst of ten seconds", func(look int) int { return 8 * mb * min(look, 10) }, 11},
		{"a burst that becomes a trickle", func(look int) int { return 8*mb*min(look, 10) + mb*look/10 }, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			p := flushPace{interval: 40 * flushLook, flushed: start}
			look := 1
			for !p.due(c.lacking(look), start.Add(time.Duration(look)*flushLook)) {
				look++
			}
			if look != c.flushed {
				t.Errorf("a cut was due at look %d, want %d", look, c.flushed)
			}
		})
	}
}

// A member that is killed in the quiet after a burst finds the burst in its image.
func TestBurstIsFlushedWhenItIsOver(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBenchIn(t, dir)
		defer func() {
			if err := b.flusher.close(false); err != nil {
				t.Error(err)
			}
		}()
		value := strings.Repeat("v", 1<<20)
		for i := range 2 * burstBytes >> 20 {
			b.put(fmt.Sprint(i), value)
			time.Sleep(flushLook / 2)
		}
		if flushed := b.flusher.flushed.Load(); flushed != 0 {
			t.Errorf("flushed %d during the burst", flushed)
		}
		time.Sleep(3 * flushLook)
		synctest.Wait()
		if flushed := b.flusher.flushed.Load(); flushed != b.index {
			t.Errorf("flushed %d when the burst was over, want %d", flushed, b.index)
		}
	})
}

// A cut that is due while the disk is full is written as soon as there is space, not an interval later: entries may wait for it.
func TestCutIsWrittenOnceThereIsSpace(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBenchIn(t, dir)
		free := uint64(0)
		b.flusher.disk = newDisk("a", dir, 0, testLogger())
		b.flusher.disk.free = func(string) (uint64, error) { return free, nil }
		b.flusher.disk.ranOut()
		b.flusher.timing.FlushBytes = 1
		b.put("a", "1")
		time.Sleep(10 * flushLook)
		if flushed := b.flusher.flushed.Load(); flushed != 0 {
			t.Errorf("flushed %d to a full disk", flushed)
		}
		free = leastRoom
		b.flusher.disk.look(time.Now())
		time.Sleep(2 * flushLook)
		synctest.Wait()
		if flushed := b.flusher.flushed.Load(); flushed != b.index {
			t.Errorf("flushed %d once there was space, want %d", flushed, b.index)
		}
		if err := b.flusher.close(false); err != nil {
			t.Error(err)
		}
	})
}

// What a member would have to execute again at its start is bounded by time too: a command may be small and dear.
func TestWhatTakesLongToExecuteIsFlushed(t *testing.T) {
	timing := Timing{FlushBytes: 1000, FlushReplay: time.Second}
	for _, c := range []struct {
		unflushed
		tooMuch bool
	}{
		{unflushed{}, false},
		{unflushed{bytes: 999, executing: time.Second - 1}, false},
		{unflushed{bytes: 1000}, true},
		{unflushed{bytes: 1, executing: time.Second}, true},
	} {
		if got := c.unflushed.tooMuch(timing); got != c.tooMuch {
			t.Errorf("%+v: %t", c.unflushed, got)
		}
	}
	b := newBench(t)
	b.mu.Lock()
	b.flusher.timing.FlushReplay = 1 // every entry takes longer
	b.mu.Unlock()
	b.putNext()
	eventually(t, "the entry is flushed", func() bool { return b.flusher.flushed.Load() == 1 })
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}
