package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// DefaultHolderTTL is how long a holder lives after its last renewal where nobody chose.
	DefaultHolderTTL = 10 * time.Second
	// holderRenewals is how often a holder is renewed in its time to live.
	holderRenewals = 3
	// A clock may run a twentieth slower than that of metasrv: a holder believes in its time for so much less.
	holderMarginOf, holderMarginBy = 20, 21
)

// HolderConfig says who holds.
type HolderConfig struct {
	// TTL is the time after its last renewal in which the holder is not gone. Default 10 s, 500 ms at least.
	TTL time.Duration
	// Name says who that is, for people: what they see who look for the holder of a lock.
	Name string
}

// Holder claims names, of locks and in elections, and keeps itself alive until it is closed. It is safe for concurrent use.
type Holder struct {
	client *Client
	id     uint64
	ttl    time.Duration
	// alive ends when the holder is lost.
	alive context.Context
	lost  context.CancelFunc
	end   context.CancelFunc
	ended chan struct{}

	mu sync.Mutex
	// until is the end of its time, by leaseClock.
	until time.Duration
	err   error
}

// OpenHolder returns a new holder. It must be closed.
func (c *Client) OpenHolder(ctx context.Context, cfg HolderConfig) (*Holder, error) {
	if cfg.TTL == 0 {
		cfg.TTL = DefaultHolderTTL
	}
	sent := leaseClock()
	r, err := c.Locks().OpenHolder(ctx, &metasrvpb.OpenHolderRequest{TtlMs: uint64(max(0, cfg.TTL.Milliseconds())), Name: cfg.Name})
	if err != nil {
		return nil, err
	}
	runCtx, done, err := c.enter(context.Background())
	if err != nil {
		return nil, err
	}
	runCtx, end := context.WithCancel(runCtx)
	h := &Holder{client: c, id: r.GetHolder(), ttl: cfg.TTL, end: end, ended: make(chan struct{})}
	h.alive, h.lost = context.WithCancel(context.Background())
	h.extend(sent)
	go func() {
		defer done()
		defer close(h.ended)
		h.keep(runCtx)
	}()
	return h, nil
}

// ID names the holder in the cluster.
func (h *Holder) ID() uint64 { return h.id }

// Lost returns a channel that is closed when the holder's time may be over: by its own clock, before the cluster gives to
// others what it holds. It is not closed by Close. A process that stood still sees it late; ask Valid.
func (h *Holder) Lost() <-chan struct{} { return h.alive.Done() }

// Valid returns nil while nobody else can have what the holder holds, or metasrv.ErrHolderNotFound. What it says may be
// over when the caller acts on it: what must not happen twice is guarded by fencing tokens.
func (h *Holder) Valid() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil && leaseClock() >= h.until {
		h.lose(metasrv.ErrHolderNotFound.With("holder %d could not be renewed for %s", h.id, h.ttl))
	}
	return h.err
}

// Close ends the holder and gives back what it holds. An error means that this takes until its time is over.
func (h *Holder) Close(ctx context.Context) error {
	h.end()
	<-h.ended
	h.mu.Lock()
	if h.err == nil {
		h.err = metasrv.ErrHolderNotFound.With("holder %d was closed", h.id)
	}
	h.mu.Unlock()
	_, err := h.client.Locks().CloseHolder(ctx, &metasrvpb.CloseHolderRequest{Holder: h.id})
	return err
}

// keep renews the holder until ctx ends or it is lost.
func (h *Holder) keep(ctx context.Context) {
	interval := h.ttl / holderRenewals
	wait := interval
	for pause(ctx, wait) {
		sent := leaseClock()
		attempt, cancel := context.WithTimeout(ctx, interval)
		_, err := h.client.Locks().KeepHolder(attempt, &metasrvpb.KeepHolderRequest{Holder: h.id})
		cancel()
		switch {
		case err == nil:
			h.extend(sent)
			wait = interval
			continue
		case errors.Is(err, metasrv.ErrHolderNotFound):
			h.mu.Lock()
			h.lose(err)
			h.mu.Unlock()
			return
		case h.Valid() != nil:
			return
		}
		wait = interval / holderRenewals
	}
}

// extend notes a renewal that was sent at a time.
func (h *Holder) extend(sent time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = max(h.until, sent+h.ttl*holderMarginOf/holderMarginBy)
}

// lose ends the holder's time. h.mu is held.
func (h *Holder) lose(why error) {
	if h.err == nil {
		h.err = why
		h.lost()
	}
}
