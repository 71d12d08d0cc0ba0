package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// runApp runs a command as a user does, and returns what it prints and its exit code.
func runApp(t *testing.T, args ...string) (out, says string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = newApp(streams{in: strings.NewReader(""), out: &stdout, err: &stderr}).run(t.Context(), args, os.Getenv)
	return stdout.String(), stderr.String(), code
}

// A snapshot takes the place of what has its name: of a device or a pipe it must not.
func TestSnapshotReplacesRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{pipe: "is no regular file", link: "is no regular file", dir: "is a folder"} {
		if _, says, code := runApp(t, "snapshot", "save", path, "--endpoints", "127.0.0.1:1"); code != exitUsage || !strings.Contains(says, want) {
			t.Errorf("%s: exit code %d, says %q, want %q", path, code, says, want)
		}
	}
}

// Who asks at a port that is not that of gRPC is told so, and nothing of a cluster that was not found.
func TestStatusAtAnotherPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	defer func() {
		_ = l.Close()
		<-ended
	}()
	out, says, code := runApp(t, "status", "--endpoints", l.Addr().String())
	if code != exitFailed || !strings.Contains(says, "no metasrv answered") || strings.Contains(out+says, noLeader) {
		t.Errorf("exit code %d, prints %q, says %q", code, out, says)
	}
}

// Adding a member again changes nothing. One that votes must not be said to be new, and to need an empty folder.
func TestAddingAVoterSaysThatItVotes(t *testing.T) {
	c := startCluster(t, "healthy")
	defer c.stop()
	for id, want := range map[string]string{"m2": "is in the cluster already, and votes", "m9": "Start it with an empty folder"} {
		out, says, code := runApp(t, "member", "add", id, "--raft-addr", "10.0.0.9:3003", "--endpoints", c.members[0].addr)
		if code != 0 || !strings.Contains(out, want) || strings.Contains(out, "empty folder") != (id == "m9") {
			t.Errorf("%s: exit code %d, prints %q, says %q", id, code, out, says)
		}
	}
}
