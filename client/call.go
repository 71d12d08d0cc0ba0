package client

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
)

// call is one unary call with all of its attempts.
type call struct {
	method  string
	kind    methodKind
	first   first
	request proto.Message
	// beforeAttempt prepares request for the next attempt, nil where nothing changes between attempts.
	beforeAttempt func()
	reply         any
	opts          []grpc.CallOption

	trail trail
	// last is the error of the last attempt, nil before there was one.
	last error
	// unknown: an attempt may have been executed, or may yet be.
	unknown bool
	// budget is the time that the caller gives the call, 0 where there is no limit.
	budget time.Duration
	// cut counts the attempts that took too long.
	cut int
}

// runOnce makes a write under a request id of the client's session. A session that expired before the write
// was first sent is replaced; one that expired later leaves the outcome unknown.
func (c *Client) runOnce(ctx context.Context, k *call) error {
	request, header := withHeader(k.request)
	if header == nil {
		// Without an id it can be sent again only where it surely was not executed.
		k.kind = once
		return c.run(ctx, k)
	}
	k.request = request
	w := c.members.walk(firstLeader)
	begun := c.lifeNumber()
	var expired *session
	for {
		s, err := c.sessions.get(ctx, expired)
		if err != nil {
			return k.sessionError(err)
		}
		if c.lifeNumber() != begun {
			return errLifeEnded(k.method)
		}
		sequence, ok := s.begin()
		if !ok {
			continue // another call has opened the next session
		}
		header.ClusterIncarnation = cmp.Or(header.ClusterIncarnation, c.lives.incarnation())
		k.beforeAttempt = func() { header.RequestId = s.requestID(sequence) }
		err = c.run(ctx, k)
		if s.end(sequence) && !errors.Is(err, metasrv.ErrSessionExpired) {
			c.closeSession(s)
		}
		if err == nil || k.unknown || !errors.Is(err, metasrv.ErrSessionExpired) {
			return err
		}
		if expired != nil && !pause(ctx, w.backoff()) {
			return err
		}
		expired, k.last = s, nil
	}
}

// sessionError says that a write was never sent because there was no session for it.
func (k *call) sessionError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Method: k.method, status: e.status, causes: e.causes, trail: e.trail}
	}
	return newError(k.method, status.FromContextError(err).Err(), nil, err)
}

// run makes attempts until one of them ends the call.
func (c *Client) run(ctx context.Context, k *call) error {
	w := c.members.walk(k.first)
	if deadline, ok := ctx.Deadline(); ok {
		k.budget = time.Until(deadline)
	}
	for {
		if k.beforeAttempt != nil {
			k.beforeAttempt()
		}
		if err := k.checkSize(); err != nil {
			return k.failed(ctx, err, verdict{action: giveUp})
		}
		sent, err := c.attempt(ctx, w.target, k)
		if err == nil {
			c.succeeded(k, w)
			return nil
		}
		v := classify(err)
		v.unknown = v.unknown && sent
		k.unknown = k.unknown || v.unknown
		if !k.mayRetry(v) {
			k.trail.add(w.target, err)
			return k.failed(ctx, err, v)
		}
		member := w.target
		if ctx.Err() != nil || !pause(ctx, w.next(v)) {
			// Where the caller's time ran out during this attempt, what was said before it tells more.
			if k.last != nil && isContextError(err) {
				return k.failed(ctx, k.last, classify(k.last))
			}
			k.trail.add(member, err)
			return k.failed(ctx, err, v)
		}
		k.last = err
		k.trail.add(member, err)
	}
}

// checkSize refuses what no member would take. A member would do so too, but its words are gRPC's, which could as well
// be about the answer to a request that was executed.
func (k *call) checkSize() error {
	if size := proto.Size(k.request); size > metasrv.MaxRequestBytes {
		return statusWith(codes.InvalidArgument, metasrv.InvalidArgument("", "the request has %d bytes, at most %d are allowed",
			size, metasrv.MaxRequestBytes)).Err()
	}
	return nil
}

// attempt asks one member. sent reports whether the request may have reached it.
func (c *Client) attempt(ctx context.Context, addr string, k *call) (sent bool, err error) {
	cc, release, err := c.conns.use(addr)
	if err != nil {
		return false, err
	}
	defer release()
	attemptCtx, cancel := context.WithTimeout(ctx, c.attemptTimeout(k))
	defer cancel()
	// gRPC sets the peer when the request was given to a connection.
	var p peer.Peer
	err = cc.Invoke(attemptCtx, k.method, k.request, k.reply, append(k.opts[:len(k.opts):len(k.opts)], grpc.Peer(&p))...)
	switch {
	case err == nil:
		return true, c.lives.observe(addr, k.reply)
	case attemptCtx.Err() != nil:
		k.cut++
	case Reason(err) == metasrv.ErrClusterMismatch.Reason:
		if past := c.meet(ctx, addr); past != nil {
			return false, past
		}
	}
	return p.Addr != nil, err
}

// attemptTimeout returns how long the next attempt may take. Until one took too long, that leaves the caller's
// time for another member; it grows after that, so that calls that are slow everywhere succeed.
func (c *Client) attemptTimeout(k *call) time.Duration {
	timeout := c.cfg.AttemptTimeout << min(k.cut, 10)
	if k.cut == 0 && k.budget > 0 {
		timeout = min(timeout, k.budget/2)
	}
	return timeout
}

// succeeded keeps what the call learned about the cluster.
func (c *Client) succeeded(k *call, w *walk) {
	if k.first == firstLeader && (k.kind == write || c.members.known() == "") {
		c.members.lead(w.target)
	}
	if w.failures > 0 || w.moves > 0 {
		c.refreshMembers()
	}
}

// mayRetry reports whether another attempt can do no harm and might succeed.
func (k *call) mayRetry(v verdict) bool {
	switch v.action {
	case giveUp, renewSession:
		return false
	}
	return k.kind != once || !v.unknown
}

// failed returns the error of the call from that of its last attempt.
func (k *call) failed(ctx context.Context, err error, v verdict) error {
	if v.action == renewSession && k.unknown {
		return errOutcomeUnknown(k.method, err)
	}
	var causes []error
	if k.unknown && !v.settled && (k.kind == write || k.kind == once) {
		causes = append(causes, metasrv.ErrOutcomeUnknown.With("%s may have been executed or not", k.method))
	}
	switch {
	case v.action == giveUp || v.action == renewSession:
		// The answer is final, whether there is time left or not.
	case ctx.Err() != nil:
		causes = append(causes, context.Cause(ctx))
		if errors.Is(ctx.Err(), context.Canceled) {
			err = status.Error(codes.Canceled, context.Cause(ctx).Error())
		}
	case k.mayRetry(v):
		// The deadline would have passed before the next attempt.
		causes = append(causes, context.DeadlineExceeded)
	}
	return newError(k.method, err, k.trail, causes...)
}

// isContextError reports whether err is what an attempt returns when its context ends.
func isContextError(err error) bool {
	code := status.Code(err)
	return code == codes.DeadlineExceeded || code == codes.Canceled
}

// pause waits for d. It returns false at once if ctx will have ended by then.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
