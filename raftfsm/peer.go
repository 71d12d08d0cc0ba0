package raftfsm

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// The peer protocol: what members ask each other beside raft, on the same port. A message is its length (four
// bytes, big endian) and its protobuf encoding; each request gets one response.

const (
	maxPeerMessage = 1 << 20
	// peerIdleTimeout is how long a connection may be silent.
	peerIdleTimeout = 2 * time.Minute
)

// peerClient asks other members. It keeps idle connections.
type peerClient struct {
	dial    func(ctx context.Context, addr string) (net.Conn, error)
	timeout time.Duration

	mu     sync.Mutex
	idle   map[string][]net.Conn
	closed bool
}

const maxIdlePeerConns = 2

func newPeerClient(m *mux, timeout time.Duration) *peerClient {
	return &peerClient{dial: m.dialPeer, timeout: timeout, idle: make(map[string][]net.Conn)}
}

// ask sends a request to the member at a raft address. Where an idle connection turns out to be broken it asks
// once more on a new one, so requests must be idempotent.
func (c *peerClient) ask(ctx context.Context, addr string, request *peerpb.Request) (*peerpb.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if conn := c.take(addr); conn != nil {
		if response, err := c.exchange(ctx, addr, conn, request); err == nil || ctx.Err() != nil {
			return response, err
		}
	}
	conn, err := c.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return c.exchange(ctx, addr, conn, request)
}

func (c *peerClient) exchange(ctx context.Context, addr string, conn net.Conn, request *peerpb.Request) (*peerpb.Response, error) {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	response := &peerpb.Response{}
	err := (&messageWriter{}).write(conn, request)
	if err == nil {
		err = (&messageReader{r: bufio.NewReaderSize(conn, 16)}).read(response)
	}
	if !stop() || err != nil {
		_ = conn.Close()
		return nil, errors.Join(err, context.Cause(ctx))
	}
	c.put(addr, conn)
	if response.Error != "" {
		return nil, errors.New(response.Error)
	}
	return response, nil
}

func (c *peerClient) take(addr string) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	conns := c.idle[addr]
	if len(conns) == 0 {
		return nil
	}
	conn := conns[len(conns)-1]
	c.idle[addr] = conns[:len(conns)-1]
	return conn
}

func (c *peerClient) put(addr string, conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle[addr]) >= maxIdlePeerConns {
		_ = conn.Close()
		return
	}
	c.idle[addr] = append(c.idle[addr], conn)
}

func (c *peerClient) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conns := range c.idle {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	clear(c.idle)
}

// servePeer answers the requests on one connection until it ends.
func servePeer(ctx context.Context, conn net.Conn, handle func(context.Context, *peerpb.Request) *peerpb.Response) {
	r, w := messageReader{r: bufio.NewReader(conn)}, messageWriter{}
	for {
		// A member that asks again later opens a new connection.
		_ = conn.SetDeadline(time.Now().Add(peerIdleTimeout))
		request := &peerpb.Request{}
		if r.read(request) != nil {
			return
		}
		if w.write(conn, handle(ctx, request)) != nil {
			return
		}
	}
}

// messageWriter writes messages, all from one buffer.
type messageWriter struct{ buf []byte }

func (w *messageWriter) write(to io.Writer, m proto.Message) error {
	body, err := proto.MarshalOptions{}.MarshalAppend(append(w.buf[:0], 0, 0, 0, 0), m)
	if err != nil {
		return err
	}
	w.buf = body
	binary.BigEndian.PutUint32(body, uint32(len(body)-4))
	_, err = to.Write(body)
	return err
}

// messageReader reads messages, all into one buffer: unmarshalling copies what it keeps.
type messageReader struct {
	r      *bufio.Reader
	header [4]byte
	body   []byte
}

func (r *messageReader) read(m proto.Message) error {
	if _, err := io.ReadFull(r.r, r.header[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(r.header[:])
	if length > maxPeerMessage {
		return fmt.Errorf("message of %d bytes, at most %d are allowed", length, maxPeerMessage)
	}
	if int(length) > cap(r.body) {
		r.body = make([]byte, length)
	}
	body := r.body[:length]
	if _, err := io.ReadFull(r.r, body); err != nil {
		return err
	}
	return proto.Unmarshal(body, m)
}
