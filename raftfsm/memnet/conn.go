package memnet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// windowBytes may be under way in one direction of a connection; who sends more waits.
const windowBytes = 1 << 20

var errReset = errors.New("connection reset")

// conn is one end of a connection.
type conn struct {
	net           *Net
	local, remote string
	in, out       *pipe
	once          sync.Once
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close ends both directions. What was sent still arrives, and the end behind it.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		delete(c.net.conns, c)
		c.out.finish()
		c.in.abandon()
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return address(c.local) }
func (c *conn) RemoteAddr() net.Addr { return address(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.in.readBy = t
	c.in.wake()
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.out.writeBy = t
	c.out.wake()
	return nil
}

// pipe is one direction of a connection; guarded by Net.mu.
type pipe struct {
	net     *Net
	link    *link
	chunks  []chunk
	bytes   int
	changed chan struct{}
	// last is when the latest chunk arrives: none overtakes it.
	last            time.Time
	readBy, writeBy time.Time
	// closed: nothing is sent any more. deaf: nothing is read any more. broken: both at once, and what was under way
	// is lost.
	closed, deaf, broken bool
}

// chunk is what one write sent. The end of the stream has no data.
type chunk struct {
	data []byte
	due  time.Time
}

func newPipe(n *Net, l *link) *pipe { return &pipe{net: n, link: l, changed: make(chan struct{})} }

// wake lets reader and writer look again; n.mu is held, as in all below.
func (p *pipe) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) reset() {
	p.broken = true
	p.wake()
}

func (p *pipe) finish() {
	if !p.closed {
		p.closed = true
		p.send(nil)
	}
}

func (p *pipe) abandon() {
	p.deaf = true
	p.wake()
}

func (p *pipe) send(data []byte) {
	due := time.Now().Add(p.link.delay)
	if due.Before(p.last) {
		due = p.last
	}
	p.last = due
	p.chunks = append(p.chunks, chunk{data, due})
	p.bytes += len(data)
	p.wake()
}

func (p *pipe) read(b []byte) (int, error) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case p.deaf:
			return 0, net.ErrClosed
		case p.broken:
			return 0, errReset
		case passed(p.readBy, now):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		}
		next := p.readBy
		if len(p.chunks) > 0 && !p.link.held {
			head := &p.chunks[0]
			if !head.due.After(now) {
				return p.take(head, b)
			}
			if next.IsZero() || head.due.Before(next) {
				next = head.due
			}
		}
		p.wait(next, now)
	}
}

// take reads from the first chunk.
func (p *pipe) take(head *chunk, b []byte) (int, error) {
	if head.data == nil {
		return 0, io.EOF // and again at each further read
	}
	count := copy(b, head.data)
	head.data = head.data[count:]
	p.bytes -= count
	if len(head.data) == 0 {
		p.chunks = p.chunks[1:]
	}
	p.wake()
	return count, nil
}

func (p *pipe) write(b []byte) (int, error) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case p.closed:
			return 0, net.ErrClosed
		case p.broken, p.deaf:
			return 0, errReset
		case passed(p.writeBy, now):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case p.bytes < windowBytes:
			p.send(append([]byte(nil), b...))
			return len(b), nil
		}
		p.wait(p.writeBy, now)
	}
}

// wait lets go of n.mu until something changes or a time has come.
func (p *pipe) wait(until, now time.Time) {
	changed := p.changed
	p.net.mu.Unlock()
	defer p.net.mu.Lock()
	if until.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(until.Sub(now))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

func passed(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }
