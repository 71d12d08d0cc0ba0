package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var update = flag.Bool("update", false, "write the transcripts under testdata anew")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// TestTranscripts runs testdata/script. In a transcript
//
//	cluster healthy|takeover|leaderless|slow   starts three members and sets METACTL_ENDPOINTS to them
//	lose m2                               ends a member; its port refuses connections then
//	metactl ARGS…                         runs the command; a failing one ends with its exit code
//	terminal TEXT                         the next metactl runs on a terminal on which TEXT is typed
//
// Addresses of members are shown as 127.0.0.1:10001 and so on.
func TestTranscripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values[sceneKey{}] = &scene{t: t}
			env.Defer(func() { env.Values[sceneKey{}].(*scene).stop() })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cluster":  sceneCommand((*scene).start),
			"lose":     sceneCommand((*scene).lose),
			"terminal": sceneCommand((*scene).typed),
			"metactl":  sceneCommand((*scene).metactl),
			"dropped":  sceneCommand((*scene).dropped),
		},
	})
}

type sceneKey struct{}

// scene is the cluster of one transcript.
type scene struct {
	t       *testing.T
	cluster *fakeCluster
	input   *string
}

func sceneCommand(f func(*scene, *testscript.TestScript, bool, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		f(ts.Value(sceneKey{}).(*scene), ts, neg, args)
	}
}

func (s *scene) start(ts *testscript.TestScript, _ bool, args []string) {
	s.stop()
	s.cluster = startCluster(s.t, args[0])
	var endpoints []string
	for _, m := range s.cluster.members {
		endpoints = append(endpoints, m.addr)
	}
	ts.Setenv("METACTL_ENDPOINTS", strings.Join(endpoints, ","))
}

func (s *scene) lose(ts *testscript.TestScript, _ bool, args []string) {
	for _, id := range args {
		for _, m := range s.cluster.members {
			if m.pb().Id == id {
				m.stop()
			}
		}
	}
}

func (s *scene) typed(_ *testscript.TestScript, _ bool, args []string) {
	s.input = &args[0]
}

func (s *scene) dropped(ts *testscript.TestScript, neg bool, args []string) {
	got := strings.Join(s.cluster.dropped, " ")
	if want := strings.Join(args, " "); got != want {
		ts.Fatalf("dropped %q, want %q", got, want)
	}
}

func (s *scene) stop() {
	if s.cluster != nil {
		s.cluster.stop()
	}
	s.cluster = nil
}

func (s *scene) metactl(ts *testscript.TestScript, neg bool, args []string) {
	var out, errOut bytes.Buffer
	st := streams{in: strings.NewReader(""), out: &out, err: &errOut}
	if s.input != nil {
		st.in, st.interactive, s.input = strings.NewReader(*s.input+"\n"), true, nil
	}
	a := newApp(st)
	a.probeTimeout = patience
	code := a.run(context.Background(), args, ts.Getenv)
	fmt.Fprint(ts.Stdout(), s.hideAddresses(out.String()))
	fmt.Fprint(ts.Stderr(), s.hideAddresses(errOut.String()))
	if code != 0 {
		fmt.Fprintf(ts.Stderr(), "[exit %d]\n", code)
	}
	if neg != (code != 0) {
		ts.Fatalf("exit code %d: %s", code, errOut.String())
	}
}

// hideAddresses replaces the members' ports by fixed ones of the same width, so that tables stay aligned.
func (s *scene) hideAddresses(text string) string {
	if s.cluster == nil {
		return text
	}
	for i, m := range s.cluster.members {
		_, port, _ := net.SplitHostPort(m.addr)
		fixed := fmt.Sprintf("127.0.0.1:%0*d", len(port), 10001+i)
		text = strings.ReplaceAll(text, m.addr, fixed)
	}
	return text
}

// A member that takes the connection and never answers must not hold the command beyond its timeout.
func TestHungMember(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, command := range [][]string{{"status"}, {"node", "list"}, {"table", "drop", "cpu", "--yes"}} {
		var errOut bytes.Buffer
		began := time.Now()
		code := newApp(streams{in: strings.NewReader(""), out: io.Discard, err: &errOut}).run(t.Context(),
			append(command, "--timeout", "200ms", "--endpoints", l.Addr().String()), os.Getenv)
		if code != exitFailed {
			t.Errorf("%v: exit code %d, want %d", command, code, exitFailed)
		}
		if took := time.Since(began); took > 200*time.Millisecond+2*defaultProbeTimeout {
			t.Errorf("%v took %v", command, took)
		}
		if !strings.Contains(errOut.String(), "no answer in time") {
			t.Errorf("%v says %q", command, errOut.String())
		}
	}
}

// "metasrv dev" is no help to someone whose metasrv is there but slow.
func TestStartIsAdvisedOnlyWhereNothingListens(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		advise bool
	}{
		{"refused", errors.New("dial tcp 127.0.0.1:3002: connect: connection refused"), true},
		{"no answer in time", context.DeadlineExceeded, false},
		{"no metasrv", status.Error(codes.Unimplemented, "unknown service"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := explainUnreachable([]answer{{endpoint: defaultEndpoint, err: test.err}})
			if got := strings.Contains(text, "metasrv dev"); got != test.advise {
				t.Errorf("says %q", text)
			}
		})
	}
}

// The answers of a connection that was taken when the time was up are not what a member said.
func TestReachTellsTimeFromRefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := reach(ended, []string{l.Addr().String()}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without time: %v", err)
	}
	if err := reach(t.Context(), []string{"127.0.0.1:1", l.Addr().String()}); err != nil {
		t.Errorf("one of two listens: %v", err)
	}
}

func TestSpan(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0ms"}, {999 * time.Millisecond, "999ms"}, {59 * time.Second, "59s"}, {61 * time.Second, "1m01s"},
		{2*time.Hour + 5*time.Minute, "2h05m"}, {50 * time.Hour, "2d02h"},
	} {
		if got := span(tt.d); got != tt.want {
			t.Errorf("span(%v) = %q, want %q", tt.d, got, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		bytes uint64
		want  string
	}{
		{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {3 << 29, "1.5 GiB"}, {1<<64 - 1, "16.0 EiB"},
	} {
		if got := size(tt.bytes); got != tt.want {
			t.Errorf("size(%d) = %q, want %q", tt.bytes, got, tt.want)
		}
	}
}
