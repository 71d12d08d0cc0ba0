package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/metasrv/metasrv/examples/tsdb/datanode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCommandLine: what can't be run is said, with exit code 2.
func TestCommandLine(t *testing.T) {
	t.Setenv("TSDB_ZONE", "z")
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"no node id":      {args: []string{"--data-dir", "x"}, want: "--node-id is required: a number of its own for each datanode, for example 1"},
		"no folder":       {args: []string{"--node-id", "1"}, want: "--data-dir"},
		"off loopback":    {args: []string{"--node-id", "1", "--data-dir", "x", "--listen", "0.0.0.0:4001"}, want: "--insecure"},
		"not dialable":    {args: []string{"--node-id", "1", "--data-dir", "x", "--listen", ":4001", "--insecure"}, want: "--advertise"},
		"no address":      {args: []string{"--node-id", "1", "--data-dir", "x", "--listen", "x"}, want: "--listen"},
		"an argument":     {args: []string{"1"}, want: `"1" is not understood after "tsdb datanode"`},
		"unknown flag":    {args: []string{"--nod", "1"}, want: "--help"},
		"bad environment": {env: map[string]string{"TSDB_NODE_ID": "x"}, want: "TSDB_NODE_ID"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range c.env {
				t.Setenv(key, value)
			}
			var stderr bytes.Buffer
			code := run(t.Context(), append([]string{"datanode"}, c.args...), io.Discard, &stderr)
			if code != 2 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit code %d, %q; want 2 and %q", code, stderr.String(), c.want)
			}
		})
	}
}

// TestRootCommandLine: a command that isn't there is a usage error, and the version is told to whoever asks.
func TestRootCommandLine(t *testing.T) {
	// Set for other reasons than the flag's.
	t.Setenv("TSDB_VERSION", "1.2")
	if code := run(t.Context(), nil, io.Discard, t.Output()); code != 0 {
		t.Errorf("exit code %d of the help", code)
	}
	const version = "tsdb " + datanode.Version + "\n"
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{args: []string{"datanod"}, code: 2, stderr: "tsdb: \"datanod\" is not understood after \"tsdb\"; \"tsdb --help\" lists what there is\n"},
		{args: []string{"version"}, stdout: version},
		{args: []string{"--version"}, stdout: version},
		{args: []string{"version", "x"}, code: 2, stderr: "tsdb: \"x\" is not understood after \"tsdb version\"; \"tsdb version --help\" lists what there is\n"},
		{args: []string{"sql", "select 1"}, code: 2, stderr: "tsdb: \"select 1\" is not understood after \"tsdb sql\"; a statement follows -e: tsdb sql -e \"select 1\"\n"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), c.args, &stdout, &stderr)
			if code != c.code || stdout.String() != c.stdout || stderr.String() != c.stderr {
				t.Errorf("exit code %d, %q, %q", code, stdout.String(), stderr.String())
			}
		})
	}
}

// TestPortInUse names the flag and what to do.
func TestPortInUse(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	addr := l.Addr().String()
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"datanode", "--node-id", "1", "--data-dir", t.TempDir(), "--listen", addr}, io.Discard, &stderr)
	want := "tsdb: --listen " + addr + " is in use by another process; stop that one, or choose another address\n"
	if code != 1 || stderr.String() != want {
		t.Errorf("exit code %d, %q; want 1, %q", code, stderr.String(), want)
	}
}

// TestFirstLine tells who runs where, and the end of the context stops the process without an error.
func TestFirstLine(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TSDB_DATA_DIR", folder)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"datanode", "--node-id", "7", "--listen", "127.0.0.1:0", "--metasrv", "127.0.0.1:1"}, io.Discard, writer)
		_ = writer.Close()
	}()
	line := make([]byte, 4096)
	n, err := reader.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`node_id=7`, `address=127\.0\.0\.1:[1-9]`, `data_dir=` + regexp.QuoteMeta(folder)} {
		if !regexp.MustCompile(want).Match(line[:n]) {
			t.Errorf("%q lacks %s", line[:n], want)
		}
	}
	cancel()
	_, _ = io.Copy(io.Discard, reader)
	if c := <-code; c != 0 {
		t.Errorf("exit code %d", c)
	}
}
