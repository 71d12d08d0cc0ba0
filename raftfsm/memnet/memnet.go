// Package memnet is a network between members inside one process, whose links can be cut: for tests, also in a
// testing/synctest bubble, where operating system sockets can't be used.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Net connects hosts by name. The zero value is ready.
type Net struct {
	mu        sync.Mutex
	listeners map[string]*listener
	conns     map[*conn]struct{}
	cut       map[string]bool
}

// Host returns the network as the host with an address sees it.
func (n *Net) Host(addr string) *Host { return &Host{net: n, addr: addr} }

// Cut breaks all connections of a host and lets it open no others until Heal.
func (n *Net) Cut(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut == nil {
		n.cut = make(map[string]bool)
	}
	n.cut[addr] = true
	for c := range n.conns {
		if c.from == addr || c.to == addr {
			_ = c.Conn.Close()
		}
	}
}

// Heal undoes Cut.
func (n *Net) Heal(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, addr)
}

// Host is one end of the network.
type Host struct {
	net  *Net
	addr string
}

// Listen accepts connections to the host. addr must be its own.
func (h *Host) Listen(addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if addr != h.addr {
		return nil, fmt.Errorf("host %s can't listen on %s", h.addr, addr)
	}
	if h.net.listeners[addr] != nil {
		return nil, fmt.Errorf("address %s is in use", addr)
	}
	if h.net.listeners == nil {
		h.net.listeners = make(map[string]*listener)
	}
	l := &listener{net: h.net, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	h.net.listeners[addr] = l
	return l, nil
}

var errUnreachable = errors.New("host is unreachable")

// Dial connects to another host.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	h.net.mu.Lock()
	l := h.net.listeners[addr]
	if l == nil || h.net.cut[addr] || h.net.cut[h.addr] {
		h.net.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: address(addr), Err: errUnreachable}
	}
	near, far := net.Pipe()
	a, b := h.net.wrap(near, h.addr, addr), h.net.wrap(far, h.addr, addr)
	h.net.mu.Unlock()
	select {
	case l.conns <- b:
		return a, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	_, _ = a.Close(), b.Close()
	return nil, &net.OpError{Op: "dial", Net: "mem", Addr: address(addr), Err: errUnreachable}
}

// wrap registers one end of a connection; n.mu is held.
func (n *Net) wrap(c net.Conn, from, to string) *conn {
	if n.conns == nil {
		n.conns = make(map[*conn]struct{})
	}
	w := &conn{Conn: c, net: n, from: from, to: to}
	n.conns[w] = struct{}{}
	return w
}

type conn struct {
	net.Conn
	net      *Net
	from, to string
}

func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

type listener struct {
	net    *Net
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

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		delete(l.net.listeners, l.addr)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }

type address string

func (address) Network() string  { return "mem" }
func (a address) String() string { return string(a) }
