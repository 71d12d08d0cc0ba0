package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"metasrv": main})
}

// leakChecked fails the tests where a goroutine is left.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = io.WriteString(os.Stderr, err.Error()+"\n")
		return 1
	}
	return code
}

func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: filepath.Join("testdata", "script")})
}

// command is a running metasrv of this process.
type command struct {
	stop   context.CancelFunc
	out    *bufio.Scanner
	exited chan int
	stderr strings.Builder
}

// runCommand runs metasrv until it is stopped.
func runCommand(t *testing.T, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stdout, w := io.Pipe()
	c := &command{stop: cancel, out: bufio.NewScanner(stdout), exited: make(chan int, 1)}
	go func() {
		code := run(ctx, args, w, &c.stderr)
		_ = w.Close()
		c.exited <- code
	}()
	return c
}

// until reads lines up to one that matches and returns the last submatch.
func (c *command) until(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for c.out.Scan() {
		if found := re.FindStringSubmatch(c.out.Text()); found != nil {
			return found[len(found)-1]
		}
	}
	t.Fatalf("ended before %q: %s", pattern, c.stderr.String())
	return ""
}

// end stops the command and returns its exit code.
func (c *command) end(t *testing.T) int {
	t.Helper()
	c.stop()
	for c.out.Scan() {
		t.Logf("%s", c.out.Text())
	}
	return <-c.exited
}

func TestDev(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	started := time.Now()
	c := runCommand(t, "dev", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	folder := c.until(t, `data +(\S+) `)
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("the data folder that it names: %v", err)
	}
	url := c.until(t, `curl (http://\S+/readyz)`)
	c.until(t, `metactl status --endpoints 127`)
	c.until(t, `Ready after \d+ ms`)
	if took := time.Since(started); took > time.Second {
		t.Errorf("was ready after %s, a second is promised", took)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("readyz is %s", resp.Status)
	}
	if code := c.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, c.stderr.String())
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the temporary data folder was not removed: %v", err)
	}
}

func TestDevKeepsNamedFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "data")
	for range 2 {
		c := runCommand(t, "dev", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir", folder)
		if got := c.until(t, `data +(\S+) \(kept`); got != folder {
			t.Errorf("names folder %s, want %s", got, folder)
		}
		c.until(t, `Ready after`)
		if code := c.end(t); code != 0 {
			t.Errorf("exit code %d: %s", code, c.stderr.String())
		}
	}
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("the data folder is gone: %v", err)
	}
}
