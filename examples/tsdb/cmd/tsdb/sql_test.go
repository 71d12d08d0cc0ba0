package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplitStatements(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
		rest string
	}{
		{"", nil, ""},
		{" ; ;", nil, ""},
		{"a; b ;c", []string{"a", "b"}, "c"},
		{"select ';'; x", []string{"select ';'"}, " x"},
		{`select 'it''s;', "\";", ` + "`;`" + `; `, []string{`select 'it''s;', "\";", ` + "`;`"}, ""},
		{"select 1 -- a; b\n; x", []string{"select 1 -- a; b"}, " x"},
		{"select 1 # a; b\n;", []string{"select 1 # a; b"}, ""},
		{"select /* ; */ 1;", []string{"select /* ; */ 1"}, ""},
		{"-- only a comment\n", nil, ""},
		{"select 'open; ", nil, "select 'open; "},
		{"/* open ;", nil, "/* open ;"},
		{"'\\", nil, "'\\"},
	} {
		got, rest := splitStatements(c.text)
		if diff := cmp.Diff(c.want, got); diff != "" || rest != c.rest {
			t.Errorf("%q: rest %q, want %q; statements:\n%s", c.text, rest, c.rest, diff)
		}
	}
}

func TestFirstWord(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT 1": "select", " /* x */ insert into": "insert", "-- x\n# y\nshow tables": "show", "(select 1)": "(",
		"select": "select", "": "", "select*from": "select",
	} {
		if got := firstWord(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestDrawTable(t *testing.T) {
	want := `+---+------+
| a | bü   |
+---+------+
| 1 | x    |
|   | y    |
| 2 | NULL |
+---+------+
2 rows
`
	if got := drawTable([][]string{{"a", "bü"}, {"1", "x\ny"}, {"2", "NULL"}}); got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestSQLCommandLine: what can't be done is said, by exit code too.
func TestSQLCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown format": {[]string{"-o", "xml"}, 2, "--output"},
		"no server":      {[]string{"--addr", "127.0.0.1:1", "-e", "SELECT 1"}, 1, "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := run(t.Context(), append([]string{"sql"}, c.args...), io.Discard, &stderr)
			if code != c.code || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit code %d, %q; want %d and %q", code, stderr.String(), c.code, c.want)
			}
		})
	}
}

// TestFrontendCommandLine: what can't be run is said, with exit code 2.
func TestFrontendCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"node id 0": {[]string{"--node-id", "0"},
			"--node-id: is 0; give each node a number of its own, for example 101"},
		// With the default node id, the next thing is refused.
		"default node id":    {[]string{"--metasrv", ""}, "--metasrv"},
		"MySQL off loopback": {[]string{"--node-id", "1", "--mysql-listen", "0.0.0.0:4002"}, "--mysql-listen"},
		"HTTP off loopback":  {[]string{"--node-id", "1", "--http-listen", "0.0.0.0:4000"}, "--insecure"},
		"no address":         {[]string{"--node-id", "1", "--http-listen", "x"}, "--http-listen"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := run(t.Context(), append([]string{"frontend"}, c.args...), io.Discard, &stderr)
			if code != 2 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit code %d, %q; want 2 and %q", code, stderr.String(), c.want)
			}
		})
	}
}

// TestInteract: words of the terminal need no ';', and are no statements behind the begin of one.
func TestInteract(t *testing.T) {
	for _, c := range []struct {
		pending, line, rest string
		leave               bool
		says                string
	}{
		{"", "exit", "", true, ""},
		{"", " QUIT ; ", "", true, ""},
		{"", "help", "", false, help},
		{"", "help;", "", false, help},
		{"", "select", "select\n", false, ""},
		{"select\n", "exit", "select\nexit\n", false, ""},
	} {
		var out bytes.Buffer
		rest, leave := (&sqlCommand{out: &out, err: io.Discard}).line(t.Context(), nil, c.pending, c.line)
		if rest != c.rest || leave != c.leave || out.String() != c.says {
			t.Errorf("%q behind %q: rest %q, leave %t, says %q", c.line, c.pending, rest, leave, out.String())
		}
	}
	var out bytes.Buffer
	if err := (&sqlCommand{addr: "a:1", out: &out}).interact(t.Context(), nil, strings.NewReader("exit\n")); err != nil ||
		!strings.Contains(out.String(), "exit leaves") {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestCountRows(t *testing.T) {
	for n, want := range map[int]string{0: "0 rows", 1: "1 row", 2: "2 rows"} {
		if got := countRows(n); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
