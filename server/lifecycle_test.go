package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// get returns the status and body of an HTTP endpoint.
func (m *testMemberServer) get(t *testing.T, path string) (int, string) {
	t.Helper()
	return getFrom(t, m.HTTPAddr(), path)
}

func getFrom(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(timeout(t), http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (m *testMemberServer) health(t *testing.T, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := healthpb.NewHealthClient(m.conn).Check(timeout(t), &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetStatus()
}

func TestHealthFollowsLeadership(t *testing.T) {
	const serving, not = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	m := startMember(t)
	if code, body := m.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "[-]leader failed: no metasrv leader") {
		t.Errorf("readyz without a leader: %d\n%s", code, body)
	}
	if code, body := m.get(t, "/livez"); code != http.StatusOK || !strings.Contains(body, "[+]process ok") {
		t.Errorf("livez without a leader: %d\n%s", code, body)
	}
	if got := m.health(t, ""); got != not {
		t.Errorf("health without a leader is %s", got)
	}
	m.lead(t)
	if code, body := m.get(t, "/readyz"); code != http.StatusOK || !strings.Contains(body, "readyz check passed") {
		t.Errorf("readyz of the leader: %d\n%s", code, body)
	}
	eventually(t, "health of the leader", func() bool { return m.health(t, "") == serving && m.health(t, "metasrv.leader") == serving })
	m.node.follow(otherMember())
	eventually(t, "health of a follower", func() bool { return m.health(t, "") == serving && m.health(t, "metasrv.leader") == not })
}

// A member that follows and can't, or is far behind, is of no use to clients.
func TestReadinessOfAFollowerThatFallsBehind(t *testing.T) {
	m := startLeader(t)
	m.node.follow(otherMember())
	change := func(age time.Duration, diskOut error) {
		m.node.mu.Lock()
		defer m.node.mu.Unlock()
		m.node.age, m.node.diskOut = age, diskOut
	}
	for _, tt := range []struct {
		age  time.Duration
		disk error
		code int
		says string
	}{
		{time.Second, nil, http.StatusOK, "[+]disk ok"},
		{maxBehind + time.Second, nil, http.StatusServiceUnavailable, "[-]state failed: its state was last known to be complete 11s ago"},
		{time.Second, metasrv.ErrDiskFull.With("full"), http.StatusServiceUnavailable, "[-]disk failed: this member can't follow"},
	} {
		change(tt.age, tt.disk)
		if code, body := m.get(t, "/readyz"); code != tt.code || !strings.Contains(body, tt.says) {
			t.Errorf("%v: %d\n%s", tt, code, body)
		}
	}
	change(time.Second, metasrv.ErrDiskFull.With("full"))
	m.lead(t) // it answers reads
	if code, body := m.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("a leader with a full disk: %d\n%s", code, body)
	}
}

func TestMetrics(t *testing.T) {
	m := startLeader(t)
	if _, err := m.catalog().GetCatalog(timeout(t), &metasrvpb.GetCatalogRequest{CatalogName: "nope"}); err == nil {
		t.Error("found a catalog that is not there")
	}
	_, body := m.get(t, "/metrics")
	for _, want := range []string{
		`metasrv_grpc_request_duration_seconds_count{code="NotFound",method="/metasrv.v1.Catalog/GetCatalog"} 1`,
		"metasrv_is_leader 1", "metasrv_raft_term", "metasrv_feed_bytes", "metasrv_log_cache_bytes", "metasrv_log_cache_entries", "go_goroutines", "process_cpu_seconds_total",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if code, _ := m.get(t, "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("profiles are served: %d", code)
	}
}

func TestReflection(t *testing.T) {
	m := startMember(t)
	stream, err := reflectionpb.NewServerReflectionClient(m.conn).ServerReflectionInfo(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "metasrv.v1.Router"},
	}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil || len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("reflection answers %v, %v", resp, err)
	}
}

func TestStopEndsStreams(t *testing.T) {
	m := startLeader(t)
	d := m.addDatanode(t, 1)
	watch, err := m.router().Watch(t.Context(), &metasrvpb.WatchRoutesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took > m.cfg.ShutdownTimeout/2 {
		t.Errorf("the stop took %s: something was cut off", took)
	}
	_, err = watch.Recv()
	wantRefusal(t, err, refusal{Code: codes.Unavailable, Reason: "NOT_READY", Retry: true})
	_, err = d.stream.Recv()
	wantRefusal(t, err, refusal{Code: codes.Unavailable, Reason: "NOT_READY", Retry: true})
}

func TestFailedNodeEndsMember(t *testing.T) {
	m := startLeader(t)
	broken := errors.New("disk is gone")
	m.node.fail(broken)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := m.Wait(ctx); !errors.Is(err, broken) || !strings.Contains(err.Error(), testMember) {
		t.Errorf("Wait = %v", err)
	}
}

func TestProfilerHasItsOwnPort(t *testing.T) {
	m := startMember(t, func(c *Config) { c.PprofAddr = "127.0.0.1:0" })
	if code, body := getFrom(t, m.listeners.pprof.Addr().String(), "/debug/pprof/goroutine?debug=1"); code != http.StatusOK || !strings.Contains(body, "goroutine profile") {
		t.Errorf("profile: %d\n%s", code, body)
	}
	if code, _ := m.get(t, "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("the port of /metrics shows profiles: %d", code)
	}
}

func TestPortInUseNamesFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, tt := range []struct {
		flag string
		set  func(*Config, string)
	}{
		{"grpc-addr", func(c *Config, a string) { c.GRPCAddr = a }},
		{"raft-addr", func(c *Config, a string) { c.RaftAddr = a }},
		{"http-addr", func(c *Config, a string) { c.HTTPAddr = a }},
		{"pprof-addr", func(c *Config, a string) { c.PprofAddr = a }},
	} {
		cfg := testConfig(t)
		tt.set(&cfg, taken.Addr().String())
		_, err := Start(cfg)
		wrong, ok := errors.AsType[*ConfigError](err)
		if !ok || wrong.Flag != tt.flag || !strings.Contains(wrong.Message, taken.Addr().String()) {
			t.Errorf("%s: %v", tt.flag, err)
		}
	}
}

func TestDataFolderBelongsToOneMember(t *testing.T) {
	m := startMember(t)
	cfg := testConfig(t)
	cfg.DataDir = m.cfg.DataDir
	_, err := Start(cfg)
	if wrong, ok := errors.AsType[*ConfigError](err); !ok || wrong.Flag != "data-dir" || !strings.Contains(wrong.Message, "in use by process") {
		t.Errorf("second start on the folder: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.NodeID = "m9"
	_, err = Start(cfg)
	if wrong, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(wrong.Message, "folder of member m1, but --node-id is m9") {
		t.Errorf("start of another member on the folder: %v", err)
	}
}

// TestRealNode runs the server on the replicated node, through a restart on the same folder.
func TestRealNode(t *testing.T) {
	cfg := testConfig(t)
	for round := range 2 {
		s, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WaitReady(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if revision := s.Node().View().Revision(); revision != 2 {
			t.Errorf("start %d: revision %d, want that of the two defaults", round, revision)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
