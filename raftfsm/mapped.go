package raftfsm

// WhileMapped runs use while log and image stay mapped where they are: their addresses may be used until it returns. It
// doesn't run it where the image is being written or replaced, or the member closes. Files of a snapshot that arrives
// are mapped and unmapped all the same.
func (n *Node) WhileMapped(use func()) {
	fl := n.flusher
	if !fl.mu.TryLock() {
		return
	}
	defer fl.mu.Unlock()
	if !fl.closed {
		use()
	}
}
