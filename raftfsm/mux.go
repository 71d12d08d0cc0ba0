package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The first byte of a connection to the raft port says what is spoken on it. Sharing the port lets members
// reach each other beside raft before any other address is known.
const (
	protocolRaft byte = 'R'
	protocolPeer byte = 'P'
)

const (
	preambleTimeout = 5 * time.Second
	// maxConns bounds the connections of a member, maxGreeting those of them that have not said yet what they speak. A
	// member needs a handful for each other one; what comes beyond is closed at once.
	maxConns    = 1024
	maxGreeting = 128
)

// mux shares the raft port between raft and the peer protocol.
type mux struct {
	network   Network
	listener  net.Listener
	advertise raft.ServerAddress
	peer      func(net.Conn)
	gate      raftGate
	// raft has the connections that Accept hands out.
	raft      chan net.Conn
	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
	wg        sync.WaitGroup
	// open are all connections that were accepted, greeting the number of those that have not said what they speak.
	mu       sync.Mutex
	open     map[net.Conn]struct{}
	greeting int
	// lost is told when a connection to another member, or one of raft from there, has ended.
	lost chan struct{}
}

// raftGate says what connections of raft begin with, and which of them are taken.
type raftGate struct {
	greet func() greeting
	admit func(greeting) error
}

// newMux accepts connections on listener. Those of the peer protocol are served by peer, those of raft are
// handed out by Accept if the gate admits them.
func newMux(network Network, listener net.Listener, advertise string, peer func(net.Conn), g raftGate) *mux {
	m := &mux{
		network: network, listener: listener, advertise: raft.ServerAddress(advertise), peer: peer, gate: g,
		raft: make(chan net.Conn), closed: make(chan struct{}), open: make(map[net.Conn]struct{}),
		lost: make(chan struct{}, 1),
	}
	m.wg.Go(m.accept)
	return m
}

func (m *mux) accept() {
	for {
		conn, err := m.listener.Accept()
		switch {
		case err == nil:
			m.wg.Go(func() { m.dispatch(conn) })
		case m.isClosed():
			return
		default: // such as too many open files
			select {
			case <-time.After(50 * time.Millisecond):
			case <-m.closed:
				return
			}
		}
	}
}

func (m *mux) dispatch(conn net.Conn) {
	if !m.greet(1) || !m.track(conn) {
		_ = conn.Close()
		m.greet(-1)
		return
	}
	var preamble [1]byte
	_ = conn.SetReadDeadline(time.Now().Add(preambleTimeout))
	_, err := conn.Read(preamble[:])
	if err == nil && preamble[0] == protocolRaft {
		err = m.admit(conn)
	}
	_ = conn.SetReadDeadline(time.Time{})
	m.greet(-1)
	switch {
	case err == nil && preamble[0] == protocolPeer:
		m.peer(conn)
		m.untrack(conn)
	case err == nil && preamble[0] == protocolRaft:
		// Raft doesn't close what it has accepted when it stops, so it stays among the open ones.
		select {
		case m.raft <- &answeringConn{Conn: &trackedConn{Conn: conn, mux: m}}:
		case <-m.closed:
			m.untrack(conn)
		}
	default:
		m.untrack(conn)
	}
}

// admit reads the greeting of a connection of raft and returns an error if the connection is refused.
func (m *mux) admit(conn net.Conn) error {
	g, err := readGreeting(conn)
	if err != nil {
		return err
	}
	return m.gate.admit(g)
}

// greet counts a connection that has yet to say what it speaks, or has said so; false if there are too many.
func (m *mux) greet(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.greeting += n
	return m.greeting <= maxGreeting
}

// track remembers a connection so that Close can end it; false if the mux is closed already, or has too many.
func (m *mux) track(conn net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() || len(m.open) >= maxConns {
		_ = conn.Close()
		return false
	}
	m.open[conn] = struct{}{}
	return true
}

func (m *mux) untrack(conn net.Conn) {
	m.mu.Lock()
	delete(m.open, conn)
	m.mu.Unlock()
	_ = conn.Close()
}

// trackedConn is a connection that ends with the mux: one of raft's that was accepted, or one that was dialled.
type trackedConn struct {
	net.Conn
	mux *mux
}

// Close ends the connection.
func (c *trackedConn) Close() error {
	c.mux.untrack(c.Conn)
	select {
	case c.mux.lost <- struct{}{}:
	default:
	}
	return nil
}

func (m *mux) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// Accept returns the next connection of raft.
func (m *mux) Accept() (net.Conn, error) {
	select {
	case conn := <-m.raft:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// Addr returns the address that other members dial.
func (m *mux) Addr() net.Addr { return memberAddr(m.advertise) }

// Dial opens a connection of raft.
func (m *mux) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := m.dial(ctx, string(addr), m.gate.greet().encode())
	if err != nil {
		return nil, err
	}
	return &askingConn{Conn: conn}, nil
}

func (m *mux) dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	return m.dial(ctx, addr, []byte{protocolPeer})
}

func (m *mux) dial(ctx context.Context, addr string, hello []byte) (net.Conn, error) {
	conn, err := m.network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if !m.track(conn) {
		return nil, net.ErrClosed
	}
	conn = &trackedConn{Conn: conn, mux: m}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetWriteDeadline(deadline)
	}
	if _, err := conn.Write(hello); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet %s: %w", addr, err)
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return conn, nil
}

// shut ends the listener and all connections; no new ones are made.
func (m *mux) shut() {
	m.closeOnce.Do(func() {
		m.mu.Lock()
		close(m.closed)
		for conn := range m.open {
			_ = conn.Close()
		}
		m.mu.Unlock()
		if err := m.listener.Close(); !errors.Is(err, net.ErrClosed) {
			m.closeErr = err
		}
	})
}

// Close shuts, and waits for the handlers of the peer protocol.
func (m *mux) Close() error {
	m.shut()
	m.wg.Wait()
	return m.closeErr
}

// memberAddr is the address of a member as a net.Addr.
type memberAddr string

func (memberAddr) Network() string  { return "tcp" }
func (a memberAddr) String() string { return string(a) }
