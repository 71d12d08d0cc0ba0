package main

import (
	"context"
	"fmt"
	"time"
)

// stallContext returns a context that ends when moved has not been called for a time.
func stallContext(ctx context.Context, limit time.Duration) (_ context.Context, moved func(), cancel func()) {
	ctx, end := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { end(fmt.Errorf("nothing arrived for %v: %w", limit, context.DeadlineExceeded)) })
	return ctx, func() { timer.Reset(limit) }, func() {
		timer.Stop()
		end(nil)
	}
}
