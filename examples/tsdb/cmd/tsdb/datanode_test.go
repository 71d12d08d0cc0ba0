package main

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
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
		"no node id":      {args: []string{"--data-dir", "x"}, want: "--node-id"},
		"no folder":       {args: []string{"--node-id", "1"}, want: "--data-dir"},
		"off loopback":    {args: []string{"--node-id", "1", "--data-dir", "x", "--listen", "0.0.0.0:4001"}, want: "--insecure"},
		"not dialable":    {args: []string{"--node-id", "1", "--data-dir", "x", "--listen", ":4001", "--insecure"}, want: "--advertise"},
		"no address":      {args: []string{"--node-id", "1", "--data-dir", "x", "--listen", "x"}, want: "--listen"},
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
