package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	gms "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/server"
	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/analyzer"
	"github.com/dolthub/go-mysql-server/sql/rowexec"
	"github.com/dolthub/vitess/go/mysql"
	"github.com/dolthub/vitess/go/sqltypes"
	querypb "github.com/dolthub/vitess/go/vt/proto/query"
	"github.com/sirupsen/logrus"
)

// rowexecBuilder builds the iterators of the engine's own nodes.
var rowexecBuilder = rowexec.DefaultBuilder

// Ids of our analyzer rules, above those of the engine.
const (
	refuseRule analyzer.RuleId = 1000 + iota
	keepLikeRule
	pushDownRule
	showPartitionsRule
	anyRowsRule
)

// Server answers MySQL clients.
type Server struct {
	engine *gms.Engine
	server *server.Server
	done   chan struct{}
}

// New returns a server on the listener, which it owns from then on. Every connection is served, whatever its user
// and password: bind it to loopback. Serve starts it. The engine keeps state in package variables, so a process should
// have one Server at a time.
func New(l net.Listener, store Store, logger *slog.Logger) (*Server, error) {
	configureProcess(logger)
	a := analyzer.NewBuilder(&provider{store}).
		AddPreAnalyzeRule(refuseRule, refuse).
		AddPreAnalyzeRule(keepLikeRule, keepLike).
		AddPostAnalyzeRule(pushDownRule, pushDown).
		AddPostAnalyzeRule(showPartitionsRule, showPartitions).
		AddPostAnalyzeRule(anyRowsRule, anyRows).
		Build()
	e := gms.New(a, &gms.Config{VersionPostfix: "tsdb"})
	e.Parser = parser{e.Parser}
	a.Parser = e.Parser
	s, err := server.NewServerWithHandler(
		server.Config{Protocol: "tcp", Address: l.Addr().String(), Listener: l, Version: "8.0.33-tsdb"},
		e, sql.NewContext, newSession, nil, wrapHandler)
	if err != nil {
		return nil, fmt.Errorf("mysql server on %s: %w", l.Addr(), err)
	}
	return &Server{engine: e, server: s, done: make(chan struct{})}, nil
}

func newSession(_ context.Context, conn *mysql.Conn, addr string) (sql.Session, error) {
	client := sql.Client{Address: conn.RemoteAddr().String(), User: conn.User, Capabilities: conn.Capabilities}
	return sql.NewBaseSessionWithClientServer(addr, client, conn.ConnectionID), nil
}

// Serve accepts connections until Close.
func (s *Server) Serve() error {
	defer close(s.done)
	return s.server.Start()
}

// Close ends all connections and their queries, and waits for them. Serve must have been called.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.done
	sm := s.server.SessionManager()
	for _, p := range s.engine.ProcessList.Processes() {
		_ = sm.KillConnection(p.Connection) // one that is gone is what is wanted
		s.engine.ProcessList.Kill(p.Connection)
	}
	sm.WaitForClosedConnections()
	if cerr := s.engine.Close(); err == nil && !errors.Is(cerr, context.Canceled) {
		err = cerr
	}
	return err
}

var processOnce sync.Once

// configureProcess sets what the engine keeps in package variables, once a process: its logger, the time zone,
// and that SQL never reads files of the server.
func configureProcess(logger *slog.Logger) {
	processOnce.Do(func() {
		bridgeLogs(logger)
		if err := sql.SystemVariables.AssignValues(map[string]any{
			"time_zone":        "+00:00",
			"secure_file_priv": "/dev/null",
		}); err != nil {
			panic(err) // the engine has these variables, and the values are of their types
		}
	})
}

// handler corrects the error codes of the engine.
type handler struct{ *server.Handler }

func wrapHandler(h mysql.Handler) (mysql.Handler, error) {
	inner, ok := h.(*server.Handler)
	if !ok {
		return nil, fmt.Errorf("handler is a %T", h)
	}
	return &handler{inner}, nil
}

// ComQuery implements mysql.Handler.
func (h *handler) ComQuery(ctx context.Context, c *mysql.Conn, query string, callback mysql.ResultSpoolFn) error {
	return corrected(h.Handler.ComQuery(ctx, c, query, callback))
}

// ComMultiQuery implements mysql.Handler. Nothing is left to do behind a statement that failed: the connection would
// run it although its client takes the error for the end of the answer.
func (h *handler) ComMultiQuery(
	ctx context.Context, c *mysql.Conn, query string, callback mysql.ResultSpoolFn,
) (string, error) {
	rest, err := h.Handler.ComMultiQuery(ctx, c, query, callback)
	if err != nil {
		return "", corrected(err)
	}
	return rest, nil
}

// ComPrepare implements mysql.Handler.
func (h *handler) ComPrepare(
	ctx context.Context, c *mysql.Conn, query string, prepare *mysql.PrepareData,
) ([]*querypb.Field, error) {
	fields, err := h.Handler.ComPrepare(ctx, c, query, prepare)
	return fields, corrected(err)
}

// ComStmtExecute implements mysql.Handler.
func (h *handler) ComStmtExecute(
	ctx context.Context, c *mysql.Conn, prepare *mysql.PrepareData, callback func(*sqltypes.Result) error,
) error {
	return corrected(h.Handler.ComStmtExecute(ctx, c, prepare, callback))
}

// bridgeLogs sends what the engine logs to logger: its warnings are failed statements, which their clients are
// told, so they are debug messages here.
func bridgeLogs(logger *slog.Logger) {
	logrus.SetOutput(discard{})
	logrus.SetLevel(logrus.WarnLevel)
	logrus.AddHook(logHook{logger})
}

type discard struct{}

// Write implements io.Writer.
func (discard) Write(p []byte) (int, error) { return len(p), nil }

type logHook struct{ logger *slog.Logger }

// Levels implements logrus.Hook.
func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h logHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level < logrus.WarnLevel {
		level = slog.LevelWarn
	}
	args := []any{"component", "sql"}
	if err, ok := e.Data[logrus.ErrorKey]; ok {
		args = append(args, "error", err)
	}
	h.logger.Log(context.Background(), level, e.Message, args...)
	return nil
}
