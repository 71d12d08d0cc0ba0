package e2e

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// The key-value store as an operator uses it.
func TestMetactlKV(t *testing.T) {
	c := newCluster(t)
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.grpc)
	}
	command := func(stdin string, args ...string) *exec.Cmd {
		cmd := exec.Command(metactl, append([]string{"--endpoints", strings.Join(endpoints, ","), "kv"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		return cmd
	}
	run := func(want, stdin string, args ...string) {
		t.Helper()
		out, err := command(stdin, args...).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("metactl kv %q: %v, printed %q, want %q", args, err, out, want)
		}
	}
	watch := command("", "watch", "config/", "--prefix", "--rev", "1", "--prev-kv")
	stdout, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = watch.Process.Kill()
		_ = watch.Wait()
	}()

	run("OK\n", "", "put", "config/a", "1")
	run("OK\nconfig/a\n1\n", "two\nlines", "put", "config/a", "--prev-kv")
	run("OK\n", "", "put", "other", "x")
	run("config/a\ntwo\nlines\n", "", "get", "config/", "--prefix")
	run("config/a\nother\n", "", "get", "", "--prefix", "--keys-only")
	run("2\n", "", "get", "a", "--from-key", "--count-only")
	run("x\n", "", "get", "other", "--print-value-only")
	lock := "version(lock) = 0\n\nput lock mine\n\nget lock\n"
	run("SUCCESS\n\nOK\n", lock, "txn")
	run("FAILURE\n\nlock\nmine\n", lock, "txn")
	run("1\nconfig/a\ntwo\nlines\n", "", "del", "config/", "config0", "--prev-kv")
	if out, err := command("", "get", "k", "--limit", "-1").CombinedOutput(); err == nil || !strings.Contains(string(out), "limit: is -1") {
		t.Errorf("a limit that can't be: %v, %q", err, out)
	}

	out, err := command("", "get", "lock", "-o", "json").Output()
	var answer struct {
		Kvs []struct{ Key, Value, CreateRevision, Version string }
	}
	if err := json.Unmarshal(out, &answer); err != nil || len(answer.Kvs) != 1 || answer.Kvs[0].Value != "bWluZQ==" || answer.Kvs[0].Version != "1" {
		t.Errorf("json: %s, %v", out, err)
	}
	lines, want := bufio.NewScanner(stdout), "PUT|config/a|1|PUT|config/a|1|config/a|two|lines|DELETE|config/a|two|lines|config/a"
	var seen []string
	for len(seen) < strings.Count(want, "|")+1 && lines.Scan() {
		seen = append(seen, lines.Text())
	}
	if got := strings.Join(seen, "|"); got != want {
		t.Errorf("watched %q, want %q (%v)", got, want, err)
	}
}
