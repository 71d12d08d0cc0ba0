package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// kvRange is how a command names keys: one, from KEY up to END, all that begin with KEY, or all from KEY on.
type kvRange struct {
	prefix, fromKey bool
}

func (r *kvRange) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.prefix, "prefix", false, "all keys that begin with KEY")
	cmd.Flags().BoolVar(&r.fromKey, "from-key", false, "all keys from KEY on")
	cmd.MarkFlagsMutuallyExclusive("prefix", "from-key")
}

// keys returns the range that arguments and flags name.
func (r *kvRange) keys(args []string) (key, end []byte, err error) {
	key = []byte(args[0])
	switch {
	case len(args) == 2 && (r.prefix || r.fromKey):
		return nil, nil, usagef("END can't be given together with --prefix or --from-key")
	case len(args) == 2:
		end = []byte(args[1])
	case r.prefix:
		key, end = client.Prefix(args[0])
	case r.fromKey:
		end = []byte{0}
	}
	if len(key) == 0 && len(end) == 0 {
		return nil, nil, usagef(`KEY is empty; for all keys: "" --prefix`)
	}
	return key, end, nil
}

func (a *app) kvCommand() *cobra.Command {
	return group("kv", "Keys and values that the database or its operator keeps in metasrv",
		a.kvGetCommand(), a.kvPutCommand(), a.kvDelCommand(), a.kvTxnCommand(), a.kvWatchCommand())
}

func keyArgs() cobra.PositionalArgs {
	return args(cobra.RangeArgs(1, 2), "a key, and perhaps the end of a range")
}

func (a *app) kvGetCommand() *cobra.Command {
	var r kvRange
	req, valuesOnly := &metasrvpb.RangeRequest{}, false
	cmd := &cobra.Command{
		Use: "get KEY [END]", Args: keyArgs(),
		Short: "Print keys with their values",
		Example: `  metactl kv get config/retention
  metactl kv get config/ --prefix --keys-only`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Key, req.RangeEnd, err = r.keys(args); err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.kvGet(ctx, c, req, valuesOnly)
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().Int64Var(&req.Limit, "limit", 0, "`N` keys at the most; 0 means all")
	cmd.Flags().BoolVar(&req.KeysOnly, "keys-only", false, "print no values")
	cmd.Flags().BoolVar(&req.CountOnly, "count-only", false, "print only how many keys there are")
	cmd.Flags().BoolVar(&valuesOnly, "print-value-only", false, "print no keys")
	return cmd
}

func (a *app) kvGet(ctx context.Context, c *client.Client, req *metasrvpb.RangeRequest, valuesOnly bool) error {
	req.Header = a.header()
	resp, err := c.Store().Range(ctx, req)
	if err != nil {
		return err
	}
	return a.show(resp, func(w io.Writer) {
		if req.CountOnly {
			fmt.Fprintln(w, resp.Count)
			return
		}
		for _, pair := range resp.Kvs {
			printPair(w, pair, req.KeysOnly, valuesOnly)
		}
	})
}

// printPair prints key and value as they are, a line each.
func printPair(w io.Writer, pair *metasrvpb.KeyValue, keysOnly, valuesOnly bool) {
	if !valuesOnly {
		fmt.Fprintf(w, "%s\n", pair.GetKey())
	}
	if !keysOnly {
		fmt.Fprintf(w, "%s\n", pair.GetValue())
	}
}

func (a *app) kvPutCommand() *cobra.Command {
	req := &metasrvpb.PutRequest{}
	cmd := &cobra.Command{
		Use: "put KEY [VALUE]", Args: args(cobra.RangeArgs(1, 2), "a key and a value"),
		Short: "Write a key; without VALUE, what is read from standard input",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Key = []byte(args[0])
			if len(args) == 2 {
				req.Value = []byte(args[1])
			} else {
				value, err := io.ReadAll(a.in)
				if err != nil {
					return fmt.Errorf("read the value: %w", err)
				}
				req.Value = value
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Store().Put(ctx, req, client.Once())
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { printPut(w, resp) })
			})
		},
	}
	cmd.Flags().BoolVar(&req.PrevKv, "prev-kv", false, "print also the pair that was there")
	return cmd
}

func printPut(w io.Writer, resp *metasrvpb.PutResponse) {
	fmt.Fprintln(w, "OK")
	if resp.GetPrevKv() != nil {
		printPair(w, resp.GetPrevKv(), false, false)
	}
}

func (a *app) kvDelCommand() *cobra.Command {
	var r kvRange
	req := &metasrvpb.DeleteRangeRequest{}
	cmd := &cobra.Command{
		Use: "del KEY [END]", Aliases: []string{"delete", "rm"}, Args: keyArgs(),
		Short: "Delete keys, and print how many there were",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Key, req.RangeEnd, err = r.keys(args); err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Store().DeleteRange(ctx, req)
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { printDelete(w, resp) })
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&req.PrevKv, "prev-kv", false, "print also the pairs that were there")
	return cmd
}

func printDelete(w io.Writer, resp *metasrvpb.DeleteRangeResponse) {
	fmt.Fprintln(w, resp.GetDeleted())
	for _, pair := range resp.GetPrevKvs() {
		printPair(w, pair, false, false)
	}
}

func (a *app) kvWatchCommand() *cobra.Command {
	var r kvRange
	req := &metasrvpb.WatchRequest{}
	cmd := &cobra.Command{
		Use: "watch KEY [END]", Args: keyArgs(),
		Short: "Print the changes of keys until interrupted",
		Long: `Print the changes of keys until interrupted, from now on or from a revision on.

The watch goes on at other members where one fails, and shows each change once and in order. A revision that the
cluster no longer remembers is answered with what there is now, each pair as PRESENT.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Key, req.RangeEnd, err = r.keys(args); err != nil {
				return err
			}
			req.ChangesOnly = req.StartRevision == 0
			return a.kvWatch(cmd.Context(), req)
		},
	}
	r.flags(cmd)
	cmd.Flags().Uint64Var(&req.StartRevision, "rev", 0, "`REVISION` first one whose changes are shown; 0 means from now on")
	cmd.Flags().BoolVar(&req.PrevKv, "prev-kv", false, "print also the pair before each change")
	return cmd
}

func (a *app) kvWatch(ctx context.Context, req *metasrvpb.WatchRequest) error {
	reaching, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := reach(reaching, a.endpoints); err != nil {
		return err
	}
	c, err := client.New(client.Config{Endpoints: a.endpoints, Logger: discardLogger})
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.WatchStore(ctx, req, func(u client.Update[*metasrvpb.WatchEvent]) error {
		for _, e := range u.Events {
			if err := a.show(e, func(w io.Writer) { printEvent(w, e) }); err != nil {
				return err
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil // interrupted, as it is meant to end
	}
	return err
}

func printEvent(w io.Writer, e *metasrvpb.WatchEvent) {
	kind := map[metasrvpb.WatchEvent_Type]string{
		metasrvpb.WatchEvent_TYPE_PUT: "PUT", metasrvpb.WatchEvent_TYPE_DELETE: "DELETE", metasrvpb.WatchEvent_TYPE_PRESENT: "PRESENT",
	}[e.GetType()]
	fmt.Fprintln(w, kind)
	if e.GetPrevKv() != nil {
		printPair(w, e.GetPrevKv(), false, false)
	}
	printPair(w, e.GetKv(), e.GetType() == metasrvpb.WatchEvent_TYPE_DELETE, false)
}

func (a *app) kvTxnCommand() *cobra.Command {
	return &cobra.Command{
		Use: "txn", Args: noArgs(),
		Short: "Execute a transaction that is read from standard input",
		Long: `Execute a transaction that is read from standard input: comparisons, an empty line, the commands that are executed where
all of them hold, an empty line, and those that are executed where not.

A comparison is mod("KEY"), create("KEY"), version("KEY") or value("KEY"), an operator (=, !=, <, >) and a "NUMBER" or
"VALUE". A key that doesn't exist has the revisions and the version 0. A command is get, put or del, with their flags.`,
		Example: `  printf '%s\n' 'version("lock") = "0"' '' 'put lock mine' '' 'get lock' | metactl kv txn`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := io.ReadAll(a.in)
			if err != nil {
				return fmt.Errorf("read the transaction: %w", err)
			}
			req, err := parseTxn(string(text))
			if err != nil {
				return err
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Store().Txn(ctx, req)
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { printTxn(w, resp) })
			})
		},
	}
}

func printTxn(w io.Writer, resp *metasrvpb.TxnResponse) {
	fmt.Fprintln(w, map[bool]string{true: "SUCCESS", false: "FAILURE"}[resp.GetSucceeded()])
	for _, r := range resp.GetResponses() {
		fmt.Fprintln(w)
		switch {
		case r.GetPut() != nil:
			printPut(w, r.GetPut())
		case r.GetDeleteRange() != nil:
			printDelete(w, r.GetDeleteRange())
		default:
			for _, pair := range r.GetRange().GetKvs() {
				printPair(w, pair, false, false)
			}
		}
	}
}
