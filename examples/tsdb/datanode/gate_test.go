package datanode_test

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// gate is the address that others reach a datanode by. While it is shut nothing passes, and nobody is told: as if the node
// hung.
type gate struct {
	listener net.Listener

	mu     sync.Mutex
	target string
	shut   chan struct{} // closed when it opens again, nil while it is open
	conns  map[net.Conn]bool
	// dials counts the connections that were made.
	dials int
	// left is how many bytes may pass to the datanode before all connections are cut, 0: any number.
	left int
	work sync.WaitGroup
}

func newGate(t *testing.T) *gate {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: listener, conns: map[net.Conn]bool{}}
	g.work.Go(g.accept)
	t.Cleanup(func() {
		g.open()
		_ = listener.Close()
		g.mu.Lock()
		for conn := range g.conns {
			_ = conn.Close()
		}
		g.mu.Unlock()
		g.work.Wait()
	})
	return g
}

func (g *gate) addr() string { return g.listener.Addr().String() }

// leadTo says where the datanode listens.
func (g *gate) leadTo(addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = addr
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// cutAfter breaks all connections once so many more bytes have passed to the datanode. Those made later are whole.
func (g *gate) cutAfter(bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = bytes
}

// spend counts bytes that are about to pass to the datanode, and cuts the connections where they are too many.
func (g *gate) spend(bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == 0 {
		return
	}
	if g.left -= bytes; g.left > 0 {
		return
	}
	g.left = 0
	for conn := range g.conns {
		_ = conn.Close()
	}
}

// uncut reports whether the bytes of cutAfter have not passed yet.
func (g *gate) uncut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left > 0
}

// dialled returns how many connections were made.
func (g *gate) dialled() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

func (g *gate) accept() {
	for {
		from, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.work.Go(func() {
			g.mu.Lock()
			target := g.target
			g.dials++
			g.mu.Unlock()
			to, err := net.Dial("tcp", target) //nolint:noctx // a test
			if err != nil {
				_ = from.Close()
				return
			}
			g.mu.Lock()
			g.conns[from], g.conns[to] = true, true
			g.mu.Unlock()
			var both sync.WaitGroup
			both.Go(func() { g.copy(to, from, g.spend) })
			both.Go(func() { g.copy(from, to, func(int) {}) })
			both.Wait()
		})
	}
}

// copy sends on what arrives, and tells spend how much that is.
func (g *gate) copy(to, from net.Conn, spend func(bytes int)) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		g.pass()
		spend(n)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// leftovers returns the temporary files in a datanode's folder.
func leftovers(t *testing.T, n *node) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(n.config.DataDir, "*.tmp*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}
