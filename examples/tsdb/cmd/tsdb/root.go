package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/metasrv/metasrv/examples/tsdb/datanode"
)

// commands makes the commands of tsdb; each is in the file of its name.
var commands = []func() *cobra.Command{newDatanodeCommand, newFrontendCommand, newSQLCommand, newVersionCommand}

// usageError is a command line that can't be understood.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func newRootCommand(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "tsdb",
		Short: "A small time-series database on metasrv",
		Long: `tsdb is a small time-series database on metasrv. Every flag can also be set in the environment: --data-dir as
TSDB_DATA_DIR.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       datanode.Version,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnvironment(cmd.Flags(), os.LookupEnv)
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate(versionLine)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w; %q lists what there is", err, cmd.CommandPath()+" --help")}
	})
	for _, command := range commands {
		cmd := command()
		if cmd.Args == nil {
			cmd.Args = noArgs
		}
		root.AddCommand(cmd)
	}
	return root
}

const versionLine = "tsdb " + datanode.Version + "\n"

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), versionLine)
			return err
		},
	}
}

// noArgs refuses arguments that are no flags, on the root command those that are no commands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{fmt.Errorf("%q is not understood after %q; %q lists what there is",
		args[0], cmd.CommandPath(), cmd.CommandPath()+" --help")}
}

// fromEnvironment sets the flags that the command line doesn't from TSDB_* variables.
func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "TSDB_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, set := lookup(name)
		if f.Changed || !set || failed != nil || f.Name == "help" || f.Name == "version" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = &usageError{fmt.Errorf("%s=%q: %w", name, value, err)}
		}
	})
	return failed
}

// checkBind refuses an address that other machines reach, unless insecure says that this is meant: nothing is
// encrypted and nobody is asked who they are.
func checkBind(flag, addr string, insecure bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return &usageError{fmt.Errorf("--%s: %q is not host:port", flag, addr)}
	}
	ip := net.ParseIP(host)
	if insecure || host == "localhost" || ip.IsLoopback() {
		return nil
	}
	return &usageError{fmt.Errorf("--%s: %s is reached from other machines without encryption: --insecure allows that",
		flag, addr)}
}
