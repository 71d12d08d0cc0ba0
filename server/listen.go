package server

import (
	"errors"
	"net"
	"syscall"

	"github.com/metasrv/metasrv/raftfsm"
)

// listeners are the ports of a member, pprof's nil unless asked for. They are open before anything else is done, so that a port in use
// costs nothing.
type listeners struct {
	grpc, raft, http, pprof net.Listener
}

func listen(c *Config) (*listeners, error) {
	l := &listeners{}
	for _, p := range []struct {
		flag, addr string
		listen     func(addr string) (net.Listener, error)
		to         *net.Listener
	}{
		{"grpc-addr", c.GRPCAddr, c.Listen, &l.grpc},
		{"raft-addr", c.RaftAddr, c.Network.Listen, &l.raft},
		{"http-addr", c.HTTPAddr, c.Listen, &l.http},
		{"pprof-addr", c.PprofAddr, c.Listen, &l.pprof},
	} {
		if p.addr == "" {
			continue
		}
		opened, err := p.listen(p.addr)
		if err != nil {
			return nil, errors.Join(listenError(p.flag, p.addr, err), l.close())
		}
		*p.to = opened
	}
	return l, nil
}

func listenTCP(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func listenError(flag, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return wrong(flag, "%s is in use by another process; stop that one, or choose another address", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return wrong(flag, "%s is not an address of this machine; listen on one of its own and name the other one with --advertise-%s",
			addr, flag)
	case errors.Is(err, syscall.EACCES):
		return wrong(flag, "%s may not be listened on by this user; ports below 1024 need a privilege", addr)
	}
	return wrong(flag, "listen on %s: %v", addr, err)
}

func (l *listeners) close() error {
	var errs []error
	for _, open := range []net.Listener{l.grpc, l.raft, l.http, l.pprof} {
		if open == nil {
			continue
		}
		if err := open.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// opened is a network whose only listener is open already.
type opened struct {
	raftfsm.Network
	listener net.Listener
}

// Listen returns the listener, whatever the address.
func (n opened) Listen(string) (net.Listener, error) { return n.listener, nil }

// advertised returns the address that others dial: the one configured, else the one listened on.
func advertised(configured string, l net.Listener) string {
	if configured != "" {
		return configured
	}
	return l.Addr().String()
}

// advertisedHTTP returns the address of the HTTP port. Where that listens on every address, its host is the one
// at which the member's gRPC port is reached.
func advertisedHTTP(c *Config, l net.Listener) string {
	addr := l.Addr().String()
	host, port, err := net.SplitHostPort(addr)
	if err != nil || !unspecified(host) {
		return addr
	}
	if reached, _, err := net.SplitHostPort(c.AdvertiseGRPCAddr); err == nil {
		return net.JoinHostPort(reached, port)
	}
	return addr
}
