package frontend_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the client's driver
	"go.uber.org/goleak"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/server"

	"github.com/metasrv/metasrv/examples/tsdb/datanode"
	"github.com/metasrv/metasrv/examples/tsdb/frontend"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*loggingT).flushDaemon"),
		goleak.IgnoreAnyFunction("github.com/dolthub/vitess/go/mysql.init.0.func1"))
}

// waitLimit bounds every wait for a condition.
const waitLimit = 20 * time.Second

// logger writes to standard error where TSDB_TEST_LOG is set.
func logger() *slog.Logger {
	if os.Getenv("TSDB_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// system is a metasrv member, datanodes and a frontend in this process, with real sockets and files.
type system struct {
	t       *testing.T
	metasrv *server.Server
	client  *client.Client
	nodes   map[uint64]*runner
	db      *sql.DB
	http    string
	sqlAddr string
}

// runner is something that runs until it is stopped.
type runner struct {
	stop context.CancelFunc
	done chan error
	addr string
	dir  string
}

func (r *runner) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func start(t *testing.T, datanodes int) *system {
	t.Helper()
	s := &system{t: t, nodes: map[uint64]*runner{}}
	s.startMetasrv()
	for i := range datanodes {
		s.startDatanode(uint64(i+1), "127.0.0.1:0", t.TempDir())
	}
	s.startFrontend()
	s.eventually("all nodes are live", func() bool { return s.live() == datanodes+1 })
	return s
}

func (s *system) startMetasrv() {
	s.t.Helper()
	cfg := server.Default()
	cfg.NodeID, cfg.DataDir, cfg.Logger = "m1", s.t.TempDir(), logger()
	cfg.GRPCAddr, cfg.RaftAddr, cfg.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.HeartbeatInterval = 100 * time.Millisecond
	m, err := server.Start(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.metasrv = m
	s.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			s.t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), waitLimit)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.client, err = client.New(client.Config{Endpoints: []string{m.GRPCAddr()}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := s.client.Close(); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *system) startDatanode(id uint64, listen, dir string) {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &runner{stop: stop, done: make(chan error, 1), dir: dir}
	listening := make(chan string, 1)
	go func() {
		r.done <- datanode.Run(ctx, datanode.Config{
			NodeID: metasrv.NodeID(id), Listen: listen, DataDir: dir, Metasrv: []string{s.metasrv.GRPCAddr()},
			Logger: logger(), OnListen: func(addr string) { listening <- addr },
		})
	}()
	select {
	case r.addr = <-listening:
	case err := <-r.done:
		s.t.Fatalf("datanode %d: %v", id, err)
	}
	s.nodes[id] = r
	s.t.Cleanup(func() {
		if s.nodes[id] == r {
			r.end(s.t)
		}
	})
}

// stopDatanode ends a datanode; startDatanode with its address and folder brings it back.
func (s *system) stopDatanode(id uint64) *runner {
	s.t.Helper()
	r := s.nodes[id]
	delete(s.nodes, id)
	r.end(s.t)
	return r
}

func (s *system) startFrontend() {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &runner{stop: stop, done: make(chan error, 1)}
	listening := make(chan [2]string, 1)
	go func() {
		r.done <- frontend.Run(ctx, frontend.Config{
			NodeID: 101, MySQLListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", Timeout: 2 * time.Second,
			Metasrv: []string{s.metasrv.GRPCAddr()}, Logger: logger(),
			OnListen: func(mysqlAddr, httpAddr string) { listening <- [2]string{mysqlAddr, httpAddr} },
		})
	}()
	select {
	case addrs := <-listening:
		s.sqlAddr, s.http = addrs[0], "http://"+addrs[1]
	case err := <-r.done:
		s.t.Fatalf("frontend: %v", err)
	}
	db, err := sql.Open("mysql", fmt.Sprintf("root@tcp(%s)/public", s.sqlAddr))
	if err != nil {
		s.t.Fatal(err)
	}
	s.db = db
	s.t.Cleanup(func() {
		_ = db.Close()
		http.DefaultClient.CloseIdleConnections()
		r.end(s.t)
	})
}

func (s *system) live() int {
	resp, err := s.client.Cluster().ListNodes(s.t.Context(), &metasrvpb.ListNodesRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	for _, node := range resp.GetNodes() {
		if node.GetState() == metasrvpb.NodeState_NODE_STATE_LIVE {
			n++
		}
	}
	return n
}

func (s *system) eventually(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(waitLimit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("did not happen within %s: %s", waitLimit, what)
		}
	}
}

func (s *system) exec(statement string) {
	s.t.Helper()
	if _, err := s.db.Exec(statement); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

// query returns the rows of a query, one a line, values separated by "|".
func (s *system) query(statement string) string {
	s.t.Helper()
	rows, err := tryQuery(s.db, statement)
	if err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
	return strings.Join(rows, "\n")
}

func tryQuery(db *sql.DB, statement string) ([]string, error) {
	rows, err := db.Query(statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var lines []string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		fields := make([]string, len(columns))
		for i, v := range values {
			fields[i] = "NULL"
			if v.Valid {
				fields[i] = v.String
			}
		}
		lines = append(lines, strings.Join(fields, "|"))
	}
	return lines, rows.Err()
}

// post writes line protocol and returns the status and the body of the answer.
func (s *system) post(query, body string) (int, string) {
	s.t.Helper()
	resp, err := http.Post(s.http+"/write"+query, "text/plain", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
