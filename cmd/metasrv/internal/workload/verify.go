package workload

import (
	"context"
	"fmt"
	"time"

	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Verify reads everything once more when all faults are over: each acknowledged change must be there, at the metasrv
// leader and at each other member as soon as it has reached that revision. What is read goes into the history, whose
// check tells. An error means that the cluster doesn't answer.
func Verify(ctx context.Context, cfg *Config) error {
	w := cfg.worker(cfg.Workers + cfg.TableWorkers)
	for _, group := range cfg.Groups {
		call := linear.KVCall{Name: rangeOfKeys, Group: group, Then: []linear.Action{{Slot: linear.All}}}
		if err := w.until(ctx, func(ctx context.Context) error {
			_, revision, err := send(ctx, cfg.Client, &call, &metasrvpb.RequestHeader{})
			w.seen = max(w.seen, revision)
			return err
		}); err != nil {
			return fmt.Errorf("read group %s: %w", group, err)
		}
		w.ask(ctx, call, cfg.Client, nil, &metasrvpb.RequestHeader{})
	}
	for _, name := range cfg.Tables {
		w.get(ctx, name)
	}
	for _, m := range cfg.Members {
		for _, group := range cfg.Groups {
			call := linear.KVCall{Name: rangeOfKeys, Group: group, Then: []linear.Action{{Slot: linear.All}}}
			header := &metasrvpb.RequestHeader{MinRevision: w.seen}
			if err := w.until(ctx, func(ctx context.Context) error {
				_, _, err := send(ctx, m.Conn, &call, header)
				return err
			}); err != nil {
				return fmt.Errorf("member %s has not reached revision %d: %w", m.ID, w.seen, err)
			}
			w.ask(ctx, call, m.Conn, m.Life, header)
		}
	}
	return nil
}

// until tries until it works or ctx ends.
func (w *worker) until(ctx context.Context, try func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, w.Timeout)
		err := try(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
