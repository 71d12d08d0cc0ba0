package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// watchBench has clients that write and watches that see it.
type watchBench struct {
	kvOptions
	watches int
	timeout time.Duration

	// seen has, for each client, the revisions of its writes that its watch has seen.
	seen []chan uint64
	stop context.CancelFunc
	work *errgroup.Group
}

func (a *app) benchWatchCommand() *cobra.Command {
	w := &watchBench{}
	return a.benchCommandOf("watch", "Measure Store.Watch: how soon a change is seen",
		"Measures Store.Watch: each client writes a key of its own and waits until a watch of all keys has seen it. Latency is\n"+
			"from the sending of the write. Every watch gets every change.",
		func(o *benchOptions, f *pflag.FlagSet) {
			f.IntVar(&w.watches, "watches", 10, "`N` watches of all keys")
			f.StringVar(&w.prefix, "prefix", "metactl-bench/", "`TEXT` that the keys begin with")
			f.IntVar(&w.valueSize, "value-size", 256, "`BYTES` of a value")
			keepFlag(o, f)
		},
		func(o *benchOptions) (workload, error) {
			w.keys, w.timeout = uint64(max(0, o.clients)), a.timeout //nolint:gosec // not negative
			if w.watches < 1 {
				return workload{}, usagef("--watches is %d; it must be at least 1", w.watches)
			}
			if err := w.check(); err != nil {
				return workload{}, err
			}
			return workload{
				writes:    w.writes(o),
				prepare:   func(ctx context.Context, c *client.Client) error { return w.prepare(ctx, c, o) },
				operation: w.operation,
				clean: func(ctx context.Context, c *client.Client) ([]string, error) {
					w.end()
					return w.clean(ctx, c, o)
				},
				items: "events", perOperation: w.watches,
				settings: map[string]any{"watches": w.watches, "value_size": w.valueSize, "prefix": w.prefix},
			}, nil
		})
}

// prepare opens the watches.
func (w *watchBench) prepare(ctx context.Context, c *client.Client, o *benchOptions) error {
	if err := w.mayOverwrite(ctx, c, o); err != nil {
		return err
	}
	for range o.clients {
		// A client waits for one write at a time; what it doesn't wait for any more is of no use.
		w.seen = append(w.seen, make(chan uint64, 16))
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop, w.work = stop, &errgroup.Group{}
	open := make(chan error, w.watches)
	for i := range w.watches {
		w.work.Go(func() error {
			w.watch(watching, c, i, open)
			return nil
		})
	}
	for range w.watches {
		select {
		case err := <-open:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *watchBench) end() {
	if w.stop != nil {
		w.stop()
		_ = w.work.Wait() // no error is returned
	}
}

// watch follows the changes until ctx ends, from one member to the next. It tells open how its first attempt ended.
func (w *watchBench) watch(ctx context.Context, c *client.Client, index int, open chan<- error) {
	next, opened := uint64(0), false
	for ctx.Err() == nil {
		err := w.follow(ctx, c, index, &next, func() {
			if !opened {
				opened = true
				open <- nil
			}
		})
		if !opened {
			open <- err
			return
		}
		if errors.Is(err, metasrv.ErrCompacted) {
			next = 0
		}
		pauseFor(ctx, searchPause)
	}
}

func (w *watchBench) follow(ctx context.Context, c *client.Client, index int, next *uint64, opened func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := c.Store().Watch(ctx, &metasrvpb.WatchRequest{
		Key: []byte(w.prefix), RangeEnd: prefixEnd([]byte(w.prefix)), StartRevision: *next, ChangesOnly: *next == 0, NoDelete: true,
	})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		opened()
		for _, e := range m.GetEvents() {
			w.tell(index, e.GetKv())
		}
		if r := m.GetRevision(); r > 0 {
			*next = r + 1
		}
	}
}

// tell lets a client know of its write, if it waits at this watch.
func (w *watchBench) tell(index int, kv *metasrvpb.KeyValue) {
	number, err := strconv.Atoi(strings.TrimPrefix(string(kv.GetKey()), w.prefix))
	if err != nil || number >= len(w.seen) || number%w.watches != index {
		return
	}
	select {
	case w.seen[number] <- kv.GetModRevision():
	default:
	}
}

var errNotSeen = errors.New("the change was written and not seen in time")

func (w *watchBench) operation(l *links, client int) loadgen.Op {
	request := &metasrvpb.PutRequest{
		Key: w.names().Append(nil, uint64(client)), Value: loadgen.RandomValue(w.valueSize), //nolint:gosec // not negative
	}
	return func(ctx context.Context, _ uint64) error {
		conn, linkCtx, done := l.conn(client)
		written, err := metasrvpb.NewStoreClient(conn).Put(linkCtx, request)
		done(err)
		if err != nil {
			return err
		}
		timer := time.NewTimer(w.timeout)
		defer timer.Stop()
		for {
			select {
			case revision := <-w.seen[client]:
				if revision >= written.GetHeader().GetRevision() {
					return nil
				}
			case <-timer.C:
				return errNotSeen
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}
