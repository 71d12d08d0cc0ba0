package client

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// conns has one connection a member, made when it is first needed.
type conns struct {
	options []grpc.DialOption
	idle    time.Duration
	isKnown func(addr string) bool

	mu     sync.Mutex
	byAddr map[string]*conn
	closed bool
}

type conn struct {
	*grpc.ClientConn
	users    int
	lastUsed time.Time
}

// maxAnswerBytes is the largest answer that a member sends.
const maxAnswerBytes = 256 << 20

func newConns(cfg Config, isKnown func(addr string) bool) *conns {
	options := []grpc.DialOption{
		// gRPC refuses calls while it waits to dial again; its default of up to two minutes would hide a
		// member that is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: cfg.MinBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: cfg.MaxBackoff,
			},
			MinConnectTimeout: cfg.AttemptTimeout,
		}),
		// As large as a member sends them: lists may be asked for without pages.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		// A member whose machine is gone closes nothing: streams would wait for ever.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: cfg.AttemptTimeout}),
	}
	if len(cfg.DialOptions) == 0 {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return &conns{
		options: append(options, cfg.DialOptions...),
		idle:    cfg.IdleTimeout,
		isKnown: isKnown,
		byAddr:  map[string]*conn{},
	}
}

// use returns the connection to addr. It is not closed before release is called, which must happen once or
// more often.
func (c *conns) use(addr string) (cc *grpc.ClientConn, release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, errClosed
	}
	cn := c.byAddr[addr]
	if cn == nil {
		c.pruneLocked()
		g, err := grpc.NewClient(addr, c.options...)
		if err != nil {
			return nil, nil, status.Errorf(codes.Unavailable, "connection to %s: %v", addr, err)
		}
		cn = &conn{ClientConn: g}
		c.byAddr[addr] = cn
	}
	cn.users++
	return cn.ClientConn, sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		cn.users--
		cn.lastUsed = time.Now()
	}), nil
}

// pruneLocked closes connections to members that nobody names any more. It runs when one is added: without
// that their number doesn't grow.
func (c *conns) pruneLocked() {
	for addr, cn := range c.byAddr {
		if cn.users == 0 && time.Since(cn.lastUsed) >= c.idle && !c.isKnown(addr) {
			delete(c.byAddr, addr)
			// The only error is that it is closed already.
			_ = cn.Close()
		}
	}
}

// close ends all connections and the calls on them.
func (c *conns) close() error {
	c.mu.Lock()
	all := c.byAddr
	c.byAddr, c.closed = nil, true
	c.mu.Unlock()
	var errs []error
	for _, cn := range all {
		errs = append(errs, cn.Close())
	}
	return errors.Join(errs...)
}
