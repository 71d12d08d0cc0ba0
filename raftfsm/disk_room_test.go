package raftfsm

import (
	"testing"
	"time"
)

// Also without a floor a disk that is full stays so until there is room: nobody is told of space that isn't there.
func TestFullDiskWithoutAFloorStaysFull(t *testing.T) {
	free := uint64(0)
	d := newDisk("a", t.TempDir(), 0, testLogger())
	d.free = func(string) (uint64, error) { return free, nil }
	d.look(time.Now())
	if d.out() {
		t.Error("without a floor it is full before a write was refused")
	}
	d.ranOut()
	d.look(time.Now().Add(time.Minute))
	if !d.out() || d.refusing() == nil {
		t.Error("it has space again without any free")
	}
	free = leastRoom
	d.look(time.Now().Add(time.Minute))
	if d.out() || d.refusing() != nil {
		t.Error("it is full although there is room")
	}
}
