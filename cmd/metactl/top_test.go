package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// manyNodes is the load of nodes and regions, of which the last ones are the hottest.
func manyNodes(nodes, regions int) *topLoad {
	l := &topLoad{
		stats: &metasrvpb.StatsResponse{LiveNodes: uint64(nodes)}, nodes: &metasrvpb.ListNodesResponse{}, regions: &metasrvpb.ListRegionsResponse{},
	}
	for i := range uint64(nodes) {
		l.nodes.Nodes = append(l.nodes.Nodes, &metasrvpb.Node{
			Peer: &metasrvpb.Peer{Id: i + 1, Addr: "10.0.0.1:4001"}, RcusPerSecond: float64(i * 1000), WcusPerSecond: 10,
			Stat: &metasrvpb.NodeStat{Rcus: i * 2000, Wcus: 20}, // of 2 s
		})
	}
	for i := range uint64(regions) {
		l.regions.Regions = append(l.regions.Regions, &metasrvpb.RegionInfo{
			RegionId: 1024<<32 | i, TableName: &metasrvpb.TableName{TableName: "cpu"},
			Replicas: []*metasrvpb.Replica{{
				Peer: &metasrvpb.Peer{Id: 1}, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, Stat: &metasrvpb.RegionStat{Wcus: 2 * i},
			}},
		})
	}
	return l
}

func TestTopFrame(t *testing.T) {
	l := manyNodes(30, 40)
	lines := l.frame(topOptions{sort: "load", rows: 10}, 0)
	text := strings.Join(lines, "\n")
	if len(lines) != 2+11+1+11 {
		t.Errorf("%d lines:\n%s", len(lines), text)
	}
	if !strings.HasPrefix(lines[3], "30 ") || !strings.Contains(lines[3], "29.0k") || !strings.Contains(text, "… and 20 more nodes") {
		t.Errorf("nodes are\n%s", text)
	}
	// Counters are of the node's report, of 2 s.
	if hottest := lines[15]; !strings.Contains(hottest, "1024-39") && !strings.Contains(hottest, "39 ") || !strings.Contains(hottest, " 39 ") {
		t.Errorf("the hottest region is\n%s", hottest)
	}
	l.failure = "nobody answers"
	for height := 1; height < 40; height++ {
		lines := l.frame(topOptions{sort: "writes", rows: 10}, height)
		if shown := strings.Split(paint(lines, 60, height), "\r\n"); len(shown) > height {
			t.Fatalf("%d lines on a screen of %d", len(shown), height)
		}
		if height >= 12 && (len(lines) > height || !strings.Contains(strings.Join(lines, "\n"), "REGION")) {
			t.Fatalf("a screen of %d shows\n%s", height, strings.Join(lines, "\n"))
		}
	}
}

func TestTopCutsLines(t *testing.T) {
	for line, want := range map[string]string{"": "", "abc": "abc", "abcdef": "abcd", "äöüß!": "äöüß"} {
		if got := cut(line, 4); got != want {
			t.Errorf("%q is cut to %q, want %q", line, got, want)
		}
	}
	for value, want := range map[float64]string{0: "0", 0.25: "0.2", 9.96: "10.0", 12.3: "12", 999: "999", 1234: "1.2k", 5.6e6: "5.6M"} {
		if got := rate(value); got != want {
			t.Errorf("%g is %q, want %q", value, got, want)
		}
	}
}

// screenText is a terminal that counts what is painted on it.
type screenText struct {
	mu     sync.Mutex
	text   bytes.Buffer
	paints int
	want   int
	seen   chan struct{} // closed at the wanted number
}

func (s *screenText) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paints += bytes.Count(b, []byte(home)); s.paints >= s.want && s.seen != nil {
		close(s.seen)
		s.seen = nil
	}
	return s.text.Write(b)
}

func (s *screenText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// Ctrl-C ends it as a success, and gives the terminal back. What can't be fetched meanwhile is said on the screen.
func TestTopOnATerminal(t *testing.T) {
	c := startCluster(t, "healthy")
	defer c.stop()
	seen := make(chan struct{})
	out := &screenText{want: 3, seen: seen}
	a := newApp(streams{in: strings.NewReader(""), out: out, err: out, size: func() (int, int, bool) { return 50, 20, true }})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		ended <- a.run(ctx, []string{"top", "--interval", "200ms", "--timeout", "2s", "--endpoints", c.members[0].addr}, func(string) string { return "" })
	}()
	<-seen
	c.members[0].stop()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(out.String(), "NOT UP TO DATE"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the screen doesn't say that nobody answers:\n%q", out.String())
		}
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("it ended with %d:\n%s", code, out.String())
	}
	text := out.String()
	if !strings.HasPrefix(text, enterScreen) || !strings.HasSuffix(text, leaveScreen) {
		t.Errorf("the terminal is left as %q", text[max(0, len(text)-50):])
	}
	plain := strings.NewReplacer(enterScreen, "", leaveScreen, "", home, "\r\n", clearLine, "", clearBelow, "").Replace(text)
	for line := range strings.SplitSeq(plain, "\r\n") {
		if len([]rune(line)) > 50 || strings.Contains(line, "\x1b") {
			t.Errorf("a line is too long: %q", line)
		}
	}
}

// Where there is no terminal, one refresh follows the other.
func TestTopOverAPipe(t *testing.T) {
	c := startCluster(t, "healthy")
	defer c.stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &pipe{lines: make(chan string, 100)}
	a := newApp(streams{in: strings.NewReader(""), out: out, err: out})
	ended := make(chan int, 1)
	go func() {
		ended <- a.run(ctx, []string{"top", "--interval", "200ms", "--endpoints", c.members[0].addr}, func(string) string { return "" })
	}()
	for range 2 {
		if text := <-out.lines; strings.Contains(text, "\x1b") || !strings.HasSuffix(text, "\n\n") {
			t.Errorf("written %q", text)
		}
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

type pipe struct{ lines chan string }

func (p *pipe) Write(b []byte) (int, error) {
	select {
	case p.lines <- string(b):
		return len(b), nil
	default:
		return 0, fmt.Errorf("nobody reads")
	}
}
