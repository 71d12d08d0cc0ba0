package raftfsm

import "testing"

// What is done with the addresses of the files is not done while they may change.
func TestFilesStayMappedWhileTheyAreUsed(t *testing.T) {
	c := newCluster(t, 1)
	_, n := c.leader()
	used := func() (ran bool) {
		n.WhileMapped(func() { ran = true })
		return ran
	}
	if err := n.flusher.replace(func(old *image) (*image, uint64, error) {
		if used() {
			t.Error("used while the image was replaced")
		}
		return old, n.flusher.flushed.Load(), nil
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "used between two flushes", used)
	c.stop(0)
	if used() {
		t.Error("used after the member was closed")
	}
}
