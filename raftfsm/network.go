package raftfsm

import (
	"context"
	"net"
)

// Network connects members.
type Network interface {
	// Listen accepts connections of other members.
	Listen(addr string) (net.Listener, error)
	// Dial connects to the raft address of a member.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// TCP is the network of the operating system.
type TCP struct{}

// Listen announces on a TCP address.
func (TCP) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// Dial connects to a TCP address.
func (TCP) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}
