package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// kvOptions say which keys a measurement of the store uses.
type kvOptions struct {
	prefix    string
	keys      uint64
	valueSize int
	fill      bool
	// sequential: the keys are written in turn.
	sequential bool
}

func (k *kvOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&k.prefix, "prefix", "metactl-bench/", "`TEXT` that the keys begin with")
	f.Uint64Var(&k.keys, "keys", 200_000, "`N` different keys")
	f.IntVar(&k.valueSize, "value-size", 256, "`BYTES` of a value")
}

func (k *kvOptions) check() error {
	switch {
	case k.prefix == "":
		return usagef("--prefix is empty; the keys of the measurement need one, so that no other key is touched")
	case k.keys == 0:
		return usagef("--keys is 0; at least one is needed")
	case k.valueSize < 1 || k.valueSize > 1<<20:
		return usagef("--value-size is %d; it can be 1 to %d bytes", k.valueSize, 1<<20)
	}
	return nil
}

func (k *kvOptions) names() loadgen.Keys { return loadgen.NewKeys(k.prefix, k.keys) }

func (k *kvOptions) settings() map[string]any {
	return map[string]any{"keys": k.keys, "value_size": k.valueSize, "prefix": k.prefix}
}

// writes says what becomes of the keys.
func (k *kvOptions) writes(o *benchOptions) string {
	end := "and deletes all keys under that prefix afterwards"
	if o.keep {
		end = "and keeps them"
	}
	return fmt.Sprintf("Writes up to %d keys %q… with values of %d bytes, %s.", k.keys, k.prefix, k.valueSize, end)
}

func (a *app) benchPutCommand() *cobra.Command {
	return a.benchWriteCommand("put", "Measure Store.Put: write random keys",
		"Measures Store.Put: writes random ones of a number of keys.",
		metasrvpb.Store_Put_FullMethodName, func(key, value []byte) proto.Message {
			return &metasrvpb.PutRequest{Key: key, Value: value}
		})
}

func (a *app) benchTxnCommand() *cobra.Command {
	return a.benchWriteCommand("txn", "Measure Store.Txn: compare, read and write random keys",
		"Measures Store.Txn: where a key is there, a transaction reads and writes it, else it writes it.",
		metasrvpb.Store_Txn_FullMethodName, func(key, value []byte) proto.Message {
			put := &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{Key: key, Value: value}}}
			read := &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Range{Range: &metasrvpb.RangeRequest{Key: key, KeysOnly: true}}}
			return &metasrvpb.TxnRequest{
				Compare: []*metasrvpb.Compare{{Key: key, Target: &metasrvpb.Compare_Exists{Exists: true}}},
				Success: []*metasrvpb.TxnOp{read, put},
				Failure: []*metasrvpb.TxnOp{put},
			}
		})
}

// benchWriteCommand returns the command that measures requests which write one key. request makes one.
func (a *app) benchWriteCommand(
	use, short, long, method string, request func(key, value []byte) proto.Message,
) *cobra.Command {
	k := &kvOptions{}
	return a.benchCommandOf(use, short, long,
		func(o *benchOptions, f *pflag.FlagSet) {
			k.flags(f)
			f.BoolVar(&k.sequential, "sequential", false, "write the keys in turn, so that --count as large as --keys writes each once")
			keepFlag(o, f)
		},
		func(o *benchOptions) (workload, error) {
			if err := k.check(); err != nil {
				return workload{}, err
			}
			return workload{
				writes:    k.writes(o),
				prepare:   func(ctx context.Context, c *client.Client) error { return k.mayOverwrite(ctx, c, o) },
				operation: func(l *links, client int) loadgen.Op { return k.write(l, client, method, request) },
				clean:     func(ctx context.Context, c *client.Client) ([]string, error) { return k.clean(ctx, c, o) },
				settings:  k.settings(),
			}, nil
		})
}

func (a *app) benchRangeCommand() *cobra.Command {
	k := &kvOptions{}
	return a.benchCommandOf("range", "Measure Store.Range: read random keys",
		"Measures Store.Range of one key: writes a number of keys, then reads random ones of them.",
		func(o *benchOptions, f *pflag.FlagSet) {
			readFlags(o, f)
			k.flags(f)
			f.BoolVar(&k.fill, "fill", true, "write the keys first; false means that they are there, by put --keep")
			keepFlag(o, f)
		},
		func(o *benchOptions) (workload, error) {
			if err := k.check(); err != nil {
				return workload{}, err
			}
			w := workload{
				operation: func(l *links, client int) loadgen.Op { return k.get(o, l, client) },
				settings:  k.settings(),
			}
			if k.fill {
				w.writes = k.writes(o)
				w.prepare = func(ctx context.Context, c *client.Client) error { return k.writeAll(ctx, c, o) }
				w.clean = func(ctx context.Context, c *client.Client) ([]string, error) { return k.clean(ctx, c, o) }
			}
			return w, nil
		})
}

// templateOf returns the template of a request that names a key.
func templateOf(request proto.Message, key []byte) (*loadgen.Template, error) {
	b, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	return loadgen.NewTemplate(b, key)
}

// randomOf returns the random numbers of a client.
func randomOf(client int) *rand.Rand {
	return rand.New(rand.NewPCG(rand.Uint64(), uint64(client))) //nolint:gosec // a load, no secret
}

func (k *kvOptions) write(
	l *links, client int, method string, request func(key, value []byte) proto.Message,
) loadgen.Op {
	random, names := randomOf(client), k.names()
	key := names.Append(nil, 0)
	template, err := templateOf(request(key, loadgen.RandomValue(k.valueSize)), key)
	var answer loadgen.Answer
	return func(_ context.Context, n uint64) error {
		if err != nil {
			return err
		}
		if !k.sequential {
			n = random.Uint64()
		}
		key = names.Append(key[:0], n%k.keys)
		return l.call(client, method, template.With(key), &answer)
	}
}

func (k *kvOptions) get(o *benchOptions, l *links, client int) loadgen.Op {
	random, names := randomOf(client), k.names()
	key := names.Append(nil, 0)
	template, err := templateOf(&metasrvpb.RangeRequest{Header: o.readHeader(), Key: key}, key)
	var answer loadgen.Answer
	return func(context.Context, uint64) error {
		if err != nil {
			return err
		}
		key = names.Append(key[:0], random.Uint64N(k.keys))
		if err := l.call(client, metasrvpb.Store_Range_FullMethodName, template.With(key), &answer); err != nil {
			return err
		}
		if answer.Size < k.valueSize {
			return errMissingKey
		}
		return nil
	}
}

var errMissingKey = errors.New("the key is not there")

// mayOverwrite returns an error where there are keys under the prefix and the person has not said that they may go.
func (k *kvOptions) mayOverwrite(ctx context.Context, c *client.Client, o *benchOptions) error {
	if o.yes {
		return nil
	}
	resp, err := c.Store().Range(ctx, &metasrvpb.RangeRequest{
		Key: []byte(k.prefix), RangeEnd: prefixEnd([]byte(k.prefix)), Limit: 1, KeysOnly: true,
	})
	if err != nil {
		return err
	}
	if len(resp.GetKvs()) > 0 {
		return usagef("there are keys under the prefix %q, such as %q, which the measurement would overwrite and delete; "+
			"choose another --prefix, or add --yes", k.prefix, resp.GetKvs()[0].GetKey())
	}
	return nil
}

// writeAll writes every key once.
func (k *kvOptions) writeAll(ctx context.Context, c *client.Client, o *benchOptions) error {
	if err := k.mayOverwrite(ctx, c, o); err != nil {
		return err
	}
	const writers = 64
	g, ctx := errgroup.WithContext(ctx)
	names := k.names()
	for w := range uint64(writers) {
		g.Go(func() error {
			value := loadgen.RandomValue(k.valueSize)
			for n := w; n < k.keys; n += writers {
				if _, err := c.Store().Put(ctx, &metasrvpb.PutRequest{Key: names.Append(nil, n), Value: value}); err != nil {
					return fmt.Errorf("write key %d of %d: %w", n, k.keys, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// cleanStep is how many keys are deleted at once: a command that deletes all would hold up others.
const cleanStep = 2000

// clean deletes the keys, or names them where they are kept.
func (k *kvOptions) clean(ctx context.Context, c *client.Client, o *benchOptions) ([]string, error) {
	left := []string{fmt.Sprintf("keys under %q", k.prefix)}
	if o.keep {
		return left, nil
	}
	names := k.names()
	for n := uint64(0); n < k.keys; n += cleanStep {
		_, err := c.Store().DeleteRange(ctx, &metasrvpb.DeleteRangeRequest{
			Key: names.Append(nil, n), RangeEnd: append(names.Append(nil, min(n+cleanStep, k.keys)-1), 0),
		})
		if err != nil {
			return left, err
		}
	}
	return nil, nil
}

// prefixEnd returns the end of the range of all keys with a prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return []byte{0}
}
