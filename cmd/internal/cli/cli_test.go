package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// newTree returns a command with a subcommand of its own, whose output goes to b.
func newTree(b *strings.Builder) *cobra.Command {
	run := func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root := &cobra.Command{Use: "tool", Short: "Does things", RunE: run}
	root.SetOut(b)
	root.PersistentFlags().StringSlice("endpoints", []string{"a:1"}, "where to ask, `HOST:PORT,…`")
	do := &cobra.Command{Use: "do THING", Aliases: []string{"make"}, Short: "Do a thing", RunE: run, Example: "  tool do it"}
	do.Flags().Duration("wait", time.Second, "`DURATION` to wait")
	do.Flags().BoolP("yes", "y", false, "don't ask")
	do.Flags().Uint64("node", 0, "on the node of this `ID`")
	do.Flags().String("old", "", "")
	_ = do.Flags().MarkHidden("old")
	root.AddCommand(do)
	Setup(root, cobra.NoArgs)
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

func TestHelp(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"root", []string{"--help"}, `Does things

Usage:
  tool [command]

Available Commands:
  do          Do a thing
  help        Help about any command
  version     Print the version

Flags:
      --endpoints HOST:PORT,…   where to ask, HOST:PORT,… (default a:1)
  -h, --help                    help for tool
  -v, --version                 version for tool

Use "tool [command] --help" for more information about a command.
`},
		{"subcommand", []string{"do", "--help"}, `Do a thing

Usage:
  tool do THING [flags]

Aliases:
  do, make

Examples:
  tool do it

Flags:
  -h, --help            help for do
      --node ID         on the node of this ID
      --wait DURATION   to wait (default 1s)
  -y, --yes             don't ask

Global Flags:
      --endpoints HOST:PORT,…   where to ask, HOST:PORT,… (default a:1)
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b strings.Builder
			root := newTree(&b)
			root.SetArgs(test.args)
			if err := root.Execute(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVersionIsOneLineEitherWay(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		var b strings.Builder
		root := newTree(&b)
		root.SetArgs([]string{arg})
		if err := root.Execute(); err != nil || b.String() != "tool "+Version()+"\n" {
			t.Errorf("%s prints %q, %v", arg, b.String(), err)
		}
	}
}

func TestFlagError(t *testing.T) {
	for flag, want := range map[string]string{
		"--endpoint=x": "unknown flag: --endpoint (did you mean --endpoints?)",
		"--wiat=1s":    "unknown flag: --wiat (did you mean --wait?)",
		"--ol=1":       "unknown flag: --ol",
		"--zebra":      "unknown flag: --zebra",
		"-q":           "unknown shorthand flag: 'q' in -q",
		"--wait=x":     `invalid argument "x" for "--wait" flag: must be a duration like "30s" or "5m"`,
	} {
		var b strings.Builder
		root := newTree(&b)
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetFlagErrorFunc(FlagError)
		root.SetArgs([]string{"do", flag})
		if err := root.Execute(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", flag, err, want)
		}
	}
}
