// Package memnet is a network between hosts inside one process, whose links can be slow, held or cut: for tests, also
// in a testing/synctest bubble, where operating system sockets can't be used.
//
// A host is named by what stands before the colon of its addresses. Each direction between two hosts is a link of its
// own. What is sent on a held link arrives when it is released, as with a network that lost packets for a while, or a
// process that was stopped; a cut breaks connections.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Net connects hosts by name. The zero value is ready.
type Net struct {
	mu        sync.Mutex
	listeners map[string]*listener
	conns     map[*conn]struct{}
	cut       map[string]bool
	links     map[[2]string]*link
	// changed is closed and replaced when a link changes: who dials waits for that.
	changed chan struct{}
}

// link is one direction between two hosts; guarded by Net.mu.
type link struct {
	held  bool
	delay time.Duration
}

// hostOf returns the host of an address.
func hostOf(addr string) string {
	host, _, _ := strings.Cut(addr, ":")
	return host
}

// Host returns the network as the host with an address sees it. After Crash the old one is dead and a new one lives.
func (n *Net) Host(addr string) *Host { return &Host{net: n, name: hostOf(addr)} }

// Cut breaks all connections of a host and lets it open no others until Heal.
func (n *Net) Cut(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut == nil {
		n.cut = make(map[string]bool)
	}
	n.cut[hostOf(addr)] = true
	n.reset(hostOf(addr))
	n.notify()
}

// Heal undoes Cut.
func (n *Net) Heal(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, hostOf(addr))
	n.notify()
}

// Crash breaks all connections of a host and closes its listeners, and the host can do nothing any more.
func (n *Net) Crash(h *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h.dead = true
	n.reset(h.name)
	for addr, l := range n.listeners {
		if l.host == h {
			delete(n.listeners, addr)
			l.end()
		}
	}
	n.notify()
}

// Hold keeps back what is sent from one host to another until Release, in this direction.
func (n *Net) Hold(from, to string) { n.change(from, to, func(l *link) { l.held = true }) }

// Release lets arrive what was held back.
func (n *Net) Release(from, to string) { n.change(from, to, func(l *link) { l.held = false }) }

// Delay makes what is sent from one host to another arrive so much later, from now on.
func (n *Net) Delay(from, to string, by time.Duration) {
	n.change(from, to, func(l *link) { l.delay = by })
}

func (n *Net) change(from, to string, change func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n.link(hostOf(from), hostOf(to)))
	n.notify()
}

// link returns the link between two hosts; n.mu is held.
func (n *Net) link(from, to string) *link {
	if n.links == nil {
		n.links = make(map[[2]string]*link)
	}
	key := [2]string{from, to}
	if n.links[key] == nil {
		n.links[key] = &link{}
	}
	return n.links[key]
}

// reset breaks all connections of a host; n.mu is held.
func (n *Net) reset(host string) {
	for c := range n.conns {
		if c.local == host || c.remote == host {
			c.in.reset()
			c.out.reset()
			delete(n.conns, c)
		}
	}
}

// notify wakes everyone who may go on; n.mu is held.
func (n *Net) notify() {
	for c := range n.conns {
		c.in.wake()
	}
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// wait returns a channel that is closed at the next change; n.mu is held.
func (n *Net) wait() <-chan struct{} {
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

// Host is one end of the network.
type Host struct {
	net  *Net
	name string
	dead bool
}

// Listen accepts connections to the host. addr must be its own.
func (h *Host) Listen(addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	switch {
	case hostOf(addr) != h.name:
		return nil, fmt.Errorf("host %s can't listen on %s", h.name, addr)
	case h.dead:
		return nil, errUnreachable
	case h.net.listeners[addr] != nil:
		return nil, fmt.Errorf("address %s is in use", addr)
	}
	if h.net.listeners == nil {
		h.net.listeners = make(map[string]*listener)
	}
	l := &listener{host: h, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	h.net.listeners[addr] = l
	return l, nil
}

var errUnreachable = errors.New("host is unreachable")

// Dial connects to another host. While a link between the two is held it waits.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	unreachable := &net.OpError{Op: "dial", Net: "mem", Addr: address(addr), Err: errUnreachable}
	n, to := h.net, hostOf(addr)
	n.mu.Lock()
	for n.link(h.name, to).held || n.link(to, h.name).held {
		changed := n.wait()
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, unreachable
		}
		n.mu.Lock()
	}
	l := n.listeners[addr]
	if h.dead || n.cut[to] || n.cut[h.name] {
		n.mu.Unlock()
		return nil, unreachable
	}
	if l == nil {
		n.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: address(addr), Err: syscall.ECONNREFUSED}
	}
	near, far := n.connect(h.name, to)
	n.mu.Unlock()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	_, _ = near.Close(), far.Close()
	return nil, unreachable
}

// connect returns the two ends of a connection; n.mu is held.
func (n *Net) connect(from, to string) (near, far *conn) {
	there, back := newPipe(n, n.link(from, to)), newPipe(n, n.link(to, from))
	near = &conn{net: n, local: from, remote: to, in: back, out: there}
	far = &conn{net: n, local: to, remote: from, in: there, out: back}
	if n.conns == nil {
		n.conns = make(map[*conn]struct{})
	}
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

type listener struct {
	host   *Host
	addr   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) end() { l.once.Do(func() { close(l.closed) }) }

func (l *listener) Close() error {
	l.end()
	n := l.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[l.addr] == l {
		delete(n.listeners, l.addr)
	}
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }

type address string

func (address) Network() string  { return "mem" }
func (a address) String() string { return string(a) }
