// Package links puts TCP proxies between processes of one machine, so that tests can hold back or break what one of them
// sends to another one. Who dials is found in /proc, so it works on Linux only.
//
// It refuses to know what the processes are, and what they say to each other.
package links

import (
	"net"
	"sync"
	"time"
)

// Links are the proxies of a test, by the names that it gives its processes. Close ends them.
type Links struct {
	// pids has the present process of each name.
	pids sync.Map

	mu      sync.Mutex
	held    map[link]chan struct{}
	conns   map[net.Conn]link
	closed  bool
	running sync.WaitGroup
	ports   []net.Listener
}

// link is a direction: what from sends to to.
type link struct{ from, to string }

// New returns Links without a proxy.
func New() *Links { return &Links{held: map[link]chan struct{}{}, conns: map[net.Conn]link{}} }

// Listen puts a proxy before an address that a process listens on, now or later, and returns the address of the proxy.
func (l *Links) Listen(name, addr string) (via string, err error) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = append(l.ports, port)
	l.running.Go(func() { l.accept(port, name, addr) })
	return port.Addr().String(), nil
}

// Started says which process has a name from now on. Connections of processes without a name are not accepted.
func (l *Links) Started(name string, pid int) { l.pids.Store(name, pid) }

// Close breaks all connections and waits for the goroutines of the proxies.
func (l *Links) Close() {
	l.mu.Lock()
	l.closed = true
	for _, port := range l.ports {
		_ = port.Close()
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	for way, held := range l.held {
		close(held)
		delete(l.held, way)
	}
	l.mu.Unlock()
	l.running.Wait()
}

// Hold keeps back what one process sends to another one, until Release.
func (l *Links) Hold(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	way := link{from, to}
	if l.held[way] == nil && !l.closed {
		l.held[way] = make(chan struct{})
	}
}

// Release lets pass what was held, and what comes behind it.
func (l *Links) Release(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	way := link{from, to}
	if held := l.held[way]; held != nil {
		close(held)
		delete(l.held, way)
	}
}

// Reset breaks the connections of a process; what was held on them is lost.
func (l *Links) Reset(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn, way := range l.conns {
		if way.from == name || way.to == name {
			_ = conn.Close()
		}
	}
}

func (l *Links) accept(port net.Listener, to, addr string) {
	for {
		conn, err := port.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.serve(conn, to, addr) })
	}
}

// serve joins an accepted connection with one to the process.
func (l *Links) serve(conn net.Conn, to, addr string) {
	defer conn.Close()
	from := ""
	for range 3 { // the kernel's list may miss a socket while others come and go
		if from = l.owner(conn.RemoteAddr().String()); from != "" {
			break
		}
	}
	if from == "" || !l.track(conn, link{from, to}) {
		return
	}
	defer l.untrack(conn)
	target, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return
	}
	defer target.Close()
	if !l.track(target, link{from, to}) {
		return
	}
	defer l.untrack(target)
	var both sync.WaitGroup
	both.Go(func() { l.copy(target, conn, link{from, to}) })
	both.Go(func() { l.copy(conn, target, link{to, from}) })
	both.Wait()
}

// copy sends on what arrives, unless the link is held.
func (l *Links) copy(to, from net.Conn, way link) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		l.pass(way)
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

// pass returns when a link is not held.
func (l *Links) pass(way link) {
	for {
		l.mu.Lock()
		held := l.held[way]
		l.mu.Unlock()
		if held == nil {
			return
		}
		<-held
	}
}

func (l *Links) track(conn net.Conn, way link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[conn] = way
	return true
}

func (l *Links) untrack(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}
