package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/metasrv/metasrv/cmd/internal/cli"
)

// usageError is a command line that can't be understood.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func newCommand(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "metasrv",
		Short: "Metadata and coordination server of a distributed time-series database",
		Long: `metasrv stores what a distributed time-series database consists of (catalogs, schemas, tables, regions), tells
frontends where to write and read, and decides which datanode serves what.

"metasrv dev" tries it out on this machine; "metasrv server" runs a member of a cluster. Every flag can also be set
in the environment: --grpc-addr as METASRV_GRPC_ADDR.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w; %q lists what there is", cli.FlagError(cmd, err), cmd.CommandPath()+" --help")}
	})
	root.AddCommand(newDevCommand(), newServerCommand(), newRestoreCommand(), newRecoverCommand())
	cli.Setup(root, noArgs)
	return root
}

// noArgs refuses arguments that are no flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{fmt.Errorf("%q is not understood after %q; %q lists what there is", args[0], cmd.CommandPath(), cmd.CommandPath()+" --help")}
}

// fromEnvironment sets the flags that the command line doesn't from METASRV_* variables. An empty one counts as
// not set.
func fromEnvironment(flags *pflag.FlagSet, name, lookup func(string) string) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		value := lookup(name(f.Name))
		if f.Changed || value == "" || failed != nil {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = &usageError{fmt.Errorf("%s=%q: %w", name(f.Name), value, err)}
		}
	})
	return failed
}
