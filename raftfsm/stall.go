package raftfsm

import (
	"errors"
	"net"
	"os"
	"time"
)

// raft bounds an exchange as a whole: a second for each 26 KB of a snapshot, so hours for a large one, and it does not
// bound at all how long the other end waits for the rest of a message. A member that takes a snapshot does nothing else,
// it doesn't even vote. So here silence is bounded in the middle of a message, at both ends, and the answer to a snapshot
// by its size.

const (
	// receiveStall is how long a member waits for the next bytes of a message, or until its answer is taken.
	receiveStall = 5 * time.Second
	// sendStall is how long a member waits until the other one takes more of a message. It may be busy with its disk.
	sendStall = 10 * time.Second
	// installRate is how many bytes of a received snapshot a member syncs, checks and loads a second at least.
	installRate = 4 << 20
)

// askingConn is the end of raft's connections that sends requests and reads answers.
type askingConn struct {
	net.Conn
	patience time.Duration
}

// SetDeadline is called by raft before each exchange. What it gives to the exchange is given to the answer.
func (c *askingConn) SetDeadline(t time.Time) error {
	c.patience = time.Until(t)
	return nil
}

// Write sends a part of a request.
func (c *askingConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(sendStall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Read waits for the answer.
func (c *askingConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// answeringConn is the end of raft's connections that reads requests, one after the other, and writes answers. It waits
// for the next request as long as it takes.
type answeringConn struct {
	net.Conn
	// within: a part of a request has come, and nothing was answered since.
	within, bounded bool
}

// Read returns the next bytes of a request. It ends the connection when there is silence in the middle of one.
func (c *answeringConn) Read(p []byte) (int, error) {
	if c.within || c.bounded {
		var by time.Time
		if c.within {
			by = time.Now().Add(receiveStall)
		}
		if err := c.SetReadDeadline(by); err != nil {
			return 0, err
		}
		c.bounded = c.within
	}
	n, err := c.Conn.Read(p)
	c.within = c.within || n > 0
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.Close() // raft would read on
	}
	return n, err
}

// Write sends a part of an answer.
func (c *answeringConn) Write(p []byte) (int, error) {
	c.within = false
	if err := c.SetWriteDeadline(time.Now().Add(receiveStall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
