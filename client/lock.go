package client

import (
	"context"
	"errors"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Lock is a lock that a Holder has.
type Lock struct {
	holder *Holder
	key    []byte
	token  uint64
}

// Lock waits until the holder has a lock. metasrv.ErrHolderNotFound: the holder's time was over first. Where ctx ends
// first, the claim is taken back.
func (h *Holder) Lock(ctx context.Context, name string) (*Lock, error) {
	request := &metasrvpb.LockRequest{Name: []byte(name), Holder: h.id}
	var r *metasrvpb.LockResponse
	err := h.wait(ctx, func(ctx context.Context) (err error) {
		r, err = h.client.Locks().Lock(ctx, request)
		return err
	})
	if err != nil {
		h.giveUp(ctx, func(ctx context.Context) error {
			_, err := h.client.Locks().Unlock(ctx, &metasrvpb.UnlockRequest{Name: []byte(name), Holder: h.id})
			return err
		})
		return nil, err
	}
	return &Lock{holder: h, key: r.GetKey(), token: r.GetFencingToken()}, nil
}

// TryLock returns the lock if nobody has it, or metasrv.ErrNotHeld.
func (h *Holder) TryLock(ctx context.Context, name string) (*Lock, error) {
	if err := h.Valid(); err != nil {
		return nil, err
	}
	r, err := h.client.Locks().Lock(ctx, &metasrvpb.LockRequest{Name: []byte(name), Holder: h.id, NoWait: true})
	if err != nil {
		return nil, err
	}
	return &Lock{holder: h, key: r.GetKey(), token: r.GetFencingToken()}, nil
}

// FencingToken is higher than that of all who had the lock before. What the lock guards refuses lower ones than it has seen.
func (l *Lock) FencingToken() uint64 { return l.token }

// Valid returns nil while nobody else can have the lock, see Holder.Valid.
func (l *Lock) Valid() error { return l.holder.Valid() }

// Lost is that of the holder.
func (l *Lock) Lost() <-chan struct{} { return l.holder.Lost() }

// Unlock gives the lock back.
func (l *Lock) Unlock(ctx context.Context) error {
	_, err := l.holder.client.Locks().Unlock(ctx, &metasrvpb.UnlockRequest{Key: l.key})
	return err
}

// wait asks until that succeeds, is refused for good, ctx ends or the holder is lost.
func (h *Holder) wait(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.alive, cancel)()
	for {
		if err := h.Valid(); err != nil {
			return err
		}
		attempt, end := context.WithTimeout(ctx, h.client.cfg.CallTimeout)
		err := ask(attempt)
		end()
		switch {
		case err == nil:
			return nil
		case h.Valid() != nil:
			return h.Valid()
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, metasrv.ErrStillWaiting) && !errors.Is(err, context.DeadlineExceeded):
			return err
		}
	}
}

// giveUp takes back a claim that nobody waits for any more. Where that fails it goes with the holder.
func (h *Holder) giveUp(ctx context.Context, withdraw func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.client.cfg.AttemptTimeout)
	defer cancel()
	if err := withdraw(ctx); err != nil {
		h.client.cfg.Logger.Warn("claim is not taken back, it ends with its holder", "holder", h.id, "error", err)
	}
}
