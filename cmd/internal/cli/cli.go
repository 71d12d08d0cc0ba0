// Package cli is what the commands of metasrv have in common: how they show their help and tell their version.
package cli

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Setup gives a root command its help, a --version flag and a version command that takes the arguments that
// noArgs lets pass.
func Setup(root *cobra.Command, noArgs cobra.PositionalArgs) {
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStderr(), usage(cmd))
		return err
	})
	line := root.Name() + " " + Version() + "\n"
	root.Version = Version()
	root.SetVersionTemplate(line)
	root.AddCommand(&cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), line)
			return err
		},
	})
}

// Version returns what the Go toolchain knows of this build: a module version, a commit, or "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// usage returns how a command is used: what cobra's own template says, in the form of flagLines, and without the
// bare name of a command that only has subcommands.
func usage(cmd *cobra.Command) string {
	var b strings.Builder
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "Usage:\n  %s [command]\n", cmd.CommandPath())
	} else {
		fmt.Fprintf(&b, "Usage:\n  %s\n", cmd.UseLine())
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", cmd.NameAndAliases())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nAvailable Commands:\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				fmt.Fprintf(&b, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	if cmd.HasAvailableLocalFlags() {
		b.WriteString("\nFlags:\n" + flagLines(cmd.LocalFlags()))
	}
	if cmd.HasAvailableInheritedFlags() {
		b.WriteString("\nGlobal Flags:\n" + flagLines(cmd.InheritedFlags()))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\nUse \"%s [command] --help\" for more information about a command.\n", cmd.CommandPath())
	}
	return b.String()
}

// flagLines returns the flags with their values and usage in columns. A value that is quoted at the very start of
// the usage, as in "`FOLDER` where the data is", only stands in the first one. pflag's own form counts bytes, and shows
// a value that nobody gives after each flag that takes none.
func flagLines(flags *pflag.FlagSet) string {
	type entry struct{ flag, usage string }
	var entries []entry
	width := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		if strings.HasPrefix(f.Usage, "`") {
			text = strings.TrimPrefix(text, value+" ")
		}
		e := entry{flag: "      --" + f.Name, usage: text}
		if f.Shorthand != "" {
			e.flag = "  -" + f.Shorthand + ", --" + f.Name
		}
		if value != "" {
			e.flag += " " + value
		}
		if d := strings.Trim(f.DefValue, "[]"); d != "" && d != "false" && d != "0" {
			e.usage += " (default " + d + ")"
		}
		width = max(width, utf8.RuneCountInString(e.flag))
		entries = append(entries, e)
	})
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%-*s   %s\n", width, e.flag, e.usage)
	}
	return b.String()
}
