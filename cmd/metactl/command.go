package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/cmd/internal/cli"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	exitFailed = 1
	exitUsage  = 2

	defaultEndpoint = "127.0.0.1:3002"
	defaultTimeout  = 5 * time.Second

	// A person has already waited for the command when the endpoints are asked why it failed.
	defaultProbeTimeout = time.Second
)

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// interactive: a person sits at in.
	interactive bool
	// size returns the size of the terminal that out is, false where it is none; nil is none.
	size func() (width, height int, terminal bool)
}

// usageError is a command line that metactl does not understand.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// app is one run of metactl.
type app struct {
	streams
	// probeTimeout is how long explain waits for the endpoints.
	probeTimeout time.Duration

	endpoints []string
	timeout   time.Duration
	format    string
	stale     bool
}

func newApp(s streams) *app { return &app{streams: s, probeTimeout: defaultProbeTimeout} }

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string, getenv func(string) string) int {
	root := a.command(getenv)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		if cmd.Hidden {
			cmd = root
		}
		fmt.Fprintf(a.err, "metactl: %s\nSee: %s --help\n", usage.msg, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(a.err, "metactl: %s\n", a.explain(ctx, err))
	return exitFailed
}

func (a *app) command(getenv func(string) string) *cobra.Command {
	root := group("metactl", "Ask and tell a metasrv cluster",
		a.statusCommand(), a.hashCommand(), a.sessionCommand(), a.memberCommand(), a.snapshotCommand(), a.quarantineCommand(), a.maintenanceCommand(), a.configCommand(), a.nodeCommand(), a.regionCommand(), a.procedureCommand(),
		a.catalogCommand(), a.schemaCommand(), a.tableCommand(), a.kvCommand(), a.lockCommand(), a.electionCommand(), a.groupCommand(), a.topCommand(), a.benchCommand())
	root.AddCommand(hints()...)
	root.Long = `metactl asks and tells a metasrv cluster.

A table's NAME is catalog.schema.table, schema.table or table; what is left out is greptime and public.
Answers hold every change that was acknowledged before the question; with --stale any member answers
with what it has, which also works while the cluster has no metasrv leader.`
	root.Example = `  metactl status
  metactl table route cpu
  metactl --endpoints 10.0.0.1:3002,10.0.0.2:3002 node list -o json`
	cli.Setup(root, noArgs())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef("%v", cli.FlagError(cmd, err)) })
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.checkFlags() }

	flags := root.PersistentFlags()
	flags.StringSliceVar(&a.endpoints, "endpoints", endpointsFrom(getenv),
		"`HOST:PORT,…` gRPC addresses of members (environment: METACTL_ENDPOINTS or METASRV_ENDPOINTS)")
	flags.StringVarP(&a.format, "output", "o", formatTable, "`FORMAT` form of the answer: table for people or json for programs")
	flags.DurationVar(&a.timeout, "timeout", defaultTimeout, "`DURATION` longest time that the command takes, like 500ms or 1m")
	flags.BoolVar(&a.stale, "stale", false, "let any member answer with what it has, however old")
	complete := func(names ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
	}
	// It fails only for a flag that doesn't exist.
	_ = root.RegisterFlagCompletionFunc("output", complete(formatTable, formatJSON))
	return root
}

func endpointsFrom(getenv func(string) string) []string {
	for _, name := range []string{"METACTL_ENDPOINTS", "METASRV_ENDPOINTS"} {
		if v := getenv(name); v != "" {
			return strings.Split(v, ",")
		}
	}
	return []string{defaultEndpoint}
}

func (a *app) checkFlags() error {
	if !slices.Contains([]string{formatTable, formatJSON}, a.format) {
		return usagef("--output is %q; it can be table or json", a.format)
	}
	if a.timeout <= 0 {
		return usagef("--timeout is %v; it must be above zero", a.timeout)
	}
	a.endpoints = slices.DeleteFunc(slices.Clone(a.endpoints), func(e string) bool { return e == "" })
	if len(a.endpoints) == 0 {
		return usagef("--endpoints names no address")
	}
	for _, e := range a.endpoints {
		if err := checkEndpoint(e); err != nil {
			return err
		}
	}
	return nil
}

// connected runs f with a client of the cluster, within the time that the command has.
func (a *app) connected(ctx context.Context, f func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := reach(ctx, a.endpoints); err != nil {
		return err
	}
	c, err := client.New(client.Config{Endpoints: a.endpoints, Logger: discardLogger})
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}

// header returns the header of a read.
func (a *app) header() *metasrvpb.RequestHeader {
	h := &metasrvpb.RequestHeader{}
	if a.stale {
		h.ReadLevel = metasrvpb.ReadLevel_READ_LEVEL_STALE
	}
	return h
}

// group returns a command that only has subcommands. An unknown one is an error that names the nearest: cobra
// itself would print the help and report success.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(children...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, name string) error {
	msg := fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+name)
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		msg += fmt.Sprintf("; did you mean %q?", cmd.CommandPath()+" "+near[0])
	}
	return usagef("%s", msg)
}

// args turns cobra's complaints about arguments into usage errors.
func args(check cobra.PositionalArgs, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%q takes %s, not %d arguments", cmd.CommandPath(), want, len(args))
		}
		return nil
	}
}

func noArgs() cobra.PositionalArgs { return args(cobra.NoArgs, "no argument") }

// hints returns the commands that people who know etcdctl or pd-ctl try first. Each says what to use instead.
func hints() []*cobra.Command {
	var cmds []*cobra.Command
	for _, h := range []struct{ name, instead string }{
		{"endpoint", "metactl status"},
		{"health", "metactl status"},
		{"cluster", "metactl status"},
		{"store", "metactl node list"},
		{"stores", "metactl node list"},
		{"route", "metactl table route NAME"},
		{"drop", "metactl table drop NAME"},
		{"get", "metactl kv get KEY"},
		{"put", "metactl kv put KEY VALUE"},
		{"del", "metactl kv del KEY"},
		{"txn", "metactl kv txn"},
		{"watch", "metactl kv watch KEY"},
	} {
		cmds = append(cmds, &cobra.Command{
			Use: h.name, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return usagef("metactl has no %q; use: %s", h.name, h.instead)
			},
		})
	}
	return cmds
}
