// Command metactl is what an operator asks and tells a metasrv cluster with.
//
// It exits with 0 where it did what it was asked, with 1 where it could not, and with 2 where it did not
// understand.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/mattn/go-isatty"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := newApp(streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, interactive: isatty.IsTerminal(os.Stdin.Fd()), size: terminalSize,
	}).run(ctx, os.Args[1:], os.Getenv)
	stop()
	os.Exit(code)
}

// terminalSize returns the size of the terminal that the output goes to, false where that is none.
func terminalSize() (width, height int, terminal bool) {
	width, height, err := term.GetSize(int(os.Stdout.Fd())) //nolint:gosec // a file descriptor
	return width, height, err == nil && width > 0 && height > 0
}
