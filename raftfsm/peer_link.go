package raftfsm

import (
	"bufio"
	"context"
	"errors"
	"net"
	"time"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// peerLink asks another member one question after the other on a connection that it keeps, without a goroutine of its
// own: for questions that come thousands of times a second. It is not safe for concurrent use.
type peerLink struct {
	peers *peerClient
	addr  string
	conn  net.Conn
	r     messageReader
	w     messageWriter
	// release takes the end of the connection off the context that it was opened with.
	release func() bool
}

// ask sends a request and returns the response, an error where the other member refused it. ctx ends the exchange.
func (l *peerLink) ask(ctx context.Context, addr string, timeout time.Duration, request *peerpb.Request) (*peerpb.Response, error) {
	deadline := time.Now().Add(timeout)
	kept := l.conn != nil
	response, err := l.exchange(ctx, addr, deadline, request)
	if err != nil && l.conn == nil && kept && ctx.Err() == nil && time.Now().Before(deadline) {
		return l.exchange(ctx, addr, deadline, request) // the kept connection was broken
	}
	return response, err
}

func (l *peerLink) exchange(ctx context.Context, addr string, deadline time.Time, request *peerpb.Request) (*peerpb.Response, error) {
	if err := l.send(ctx, addr, deadline, request); err != nil {
		return nil, err
	}
	return l.receive()
}

// send sends a request. Where it returns nil, receive must be called before the next one.
func (l *peerLink) send(ctx context.Context, addr string, deadline time.Time, request *peerpb.Request) error {
	if l.conn != nil && (l.addr != addr || ctx.Err() != nil) {
		l.close()
	}
	if l.conn == nil {
		if err := l.open(ctx, addr, deadline); err != nil {
			return err
		}
	}
	err := l.conn.SetDeadline(deadline)
	if err == nil {
		err = l.w.write(l.conn, request)
	}
	if err != nil {
		l.close()
	}
	return err
}

// receive returns the response to the request that was sent. After any failure the connection is closed: an answer
// that comes too late must not be taken for that to a later question.
func (l *peerLink) receive() (*peerpb.Response, error) {
	response := &peerpb.Response{}
	if err := l.r.read(response); err != nil {
		l.close()
		return nil, err
	}
	if response.Error != "" {
		return nil, errors.New(response.Error)
	}
	return response, nil
}

func (l *peerLink) open(ctx context.Context, addr string, deadline time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	bounded, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := l.peers.dial(bounded, addr)
	if err != nil {
		return err
	}
	l.addr, l.conn = addr, conn
	l.r = messageReader{r: bufio.NewReader(conn)}
	l.release = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return nil
}

func (l *peerLink) close() {
	if l.conn == nil {
		return
	}
	l.release()
	_ = l.conn.Close()
	l.conn = nil
}
