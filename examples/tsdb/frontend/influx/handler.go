package influx

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
)

// DefaultMaxBody is the largest body, in bytes after decompression.
const DefaultMaxBody = 32 << 20

// Store is where tables and rows are. *cluster.Cluster is one.
type Store interface {
	HasSchema(ctx context.Context, schema string) (bool, error)
	Name(schema, table string) metasrv.TableName
	Table(ctx context.Context, name metasrv.TableName) (*cluster.Table, error)
	CreateTable(ctx context.Context, t *cluster.NewTable) error
	Write(ctx context.Context, inserts ...cluster.Insert) error
}

// Config says what a Handler takes. Everything has a default.
type Config struct {
	// MaxBody is the largest body, in bytes after decompression. Default 32 MiB.
	MaxBody int64
	// DefaultSchema is written to where a request names none. Default: such a request is refused.
	DefaultSchema string
	// Partitions of the tables that are created for new measurements, by the hash of their tags. Default 1.
	Partitions uint32
	// Logger is told of failed writes that are not the client's fault. Default: nowhere.
	Logger *slog.Logger
}

// Handler answers POST /write.
type Handler struct {
	store Store
	cfg   Config
}

// New returns a Handler over the store.
func New(store Store, cfg Config) *Handler {
	if cfg.MaxBody == 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Handler{store: store, cfg: cfg}
}

// ServeHTTP implements http.Handler. 204 means that the region leaders have acknowledged every row.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := h.write(w, r)
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.fail(w, r, err)
}

// requestError is a refusal with its HTTP status.
type requestError struct {
	status int
	text   string
}

// Error implements error.
func (e *requestError) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &requestError{status, fmt.Sprintf(format, args...)}
}

func (h *Handler) write(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return refuse(http.StatusMethodNotAllowed, "use POST")
	}
	precision, err := precisionOf(r.URL.Query().Get("precision"))
	if err != nil {
		return err
	}
	schema, err := h.schema(r)
	if err != nil {
		return err
	}
	body, err := h.body(w, r)
	if err != nil {
		return err
	}
	points, err := parse(body, precision, time.Now().UTC())
	if err != nil {
		return err
	}
	if len(points) == 0 {
		return refuse(http.StatusBadRequest, "the body has no points")
	}
	inserts, err := h.inserts(r.Context(), schema, points)
	if err != nil {
		return err
	}
	return h.store.Write(r.Context(), inserts...)
}

func precisionOf(s string) (lineprotocol.Precision, error) {
	switch s {
	case "", "n", "ns":
		return lineprotocol.Nanosecond, nil
	case "u", "us", "µ":
		return lineprotocol.Microsecond, nil
	case "ms":
		return lineprotocol.Millisecond, nil
	case "s":
		return lineprotocol.Second, nil
	}
	return 0, refuse(http.StatusBadRequest, "precision %q is none of ns, us, ms, s", s)
}

func (h *Handler) schema(r *http.Request) (string, error) {
	schema := r.URL.Query().Get("db")
	if schema == "" {
		schema = h.cfg.DefaultSchema
	}
	if schema == "" {
		return "", refuse(http.StatusBadRequest, "db is missing: /write?db=public")
	}
	switch ok, err := h.store.HasSchema(r.Context(), schema); {
	case err != nil:
		return "", err
	case !ok:
		return "", refuse(http.StatusNotFound, "database not found: %q", schema)
	}
	return schema, nil
}

func (h *Handler) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var from io.Reader = http.MaxBytesReader(w, r.Body, h.cfg.MaxBody)
	switch e := strings.ToLower(r.Header.Get("Content-Encoding")); e {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "the body is no gzip: %s", err)
		}
		defer z.Close() //nolint:errcheck // it only reads
		from = z
	default:
		return nil, refuse(http.StatusUnsupportedMediaType, "Content-Encoding %q is not supported, use gzip", e)
	}
	body, err := io.ReadAll(io.LimitReader(from, h.cfg.MaxBody+1))
	if _, large := errors.AsType[*http.MaxBytesError](err); large || int64(len(body)) > h.cfg.MaxBody {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", h.cfg.MaxBody)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the body can't be read: %s", err)
	}
	return body, nil
}

// inserts returns the rows of the points, one Insert a measurement.
func (h *Handler) inserts(ctx context.Context, schema string, points []point) ([]cluster.Insert, error) {
	of := map[string][]point{}
	var order []string
	for _, p := range points {
		if of[p.measurement] == nil {
			order = append(order, p.measurement)
		}
		of[p.measurement] = append(of[p.measurement], p)
	}
	inserts := make([]cluster.Insert, 0, len(order))
	for _, m := range order {
		in, err := h.insert(ctx, h.store.Name(schema, m), of[m])
		if err != nil {
			return nil, err
		}
		inserts = append(inserts, in)
	}
	return inserts, nil
}

func (h *Handler) insert(ctx context.Context, name metasrv.TableName, points []point) (cluster.Insert, error) {
	t, err := h.table(ctx, name, points)
	if err != nil {
		return cluster.Insert{}, atLine(points[0].line, err)
	}
	rows, err := newRower(t)
	if err != nil {
		return cluster.Insert{}, &lineError{points[0].line, err}
	}
	for _, p := range points {
		if err := rows.add(ctx, p); err != nil {
			return cluster.Insert{}, err
		}
	}
	return cluster.Insert{Table: t, Rows: rows.rows}, nil
}

// atLine names the line of a measurement that can't be a table.
func atLine(line int, err error) error {
	if errors.Is(err, metasrv.ErrInvalidArgument) {
		return &lineError{line, err}
	}
	return err
}

// answer is the body of a refusal.
type answer struct {
	Error string `json:"error"`
	// Line is the number of the line at fault, from 1.
	Line int `json:"line,omitempty"`
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusInternalServerError
	a := answer{Error: err.Error()}
	if e, ok := errors.AsType[*lineError](err); ok {
		code, a.Line = http.StatusBadRequest, e.line
	}
	if e, ok := errors.AsType[*requestError](err); ok {
		code = e.status
	}
	if code == http.StatusInternalServerError && isTemporary(err) {
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	if code >= http.StatusInternalServerError {
		h.cfg.Logger.Warn("write failed", "path", r.URL.Path, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(a) // a client that has gone needs no answer
}

// isTemporary reports whether the same request may succeed later.
func isTemporary(err error) bool {
	if e, ok := errors.AsType[*metasrv.Error](err); ok {
		switch e.Kind {
		case metasrv.KindUnavailable, metasrv.KindResourceExhausted, metasrv.KindAborted:
			return true
		}
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, metasrv.ErrNoLiveDatanode)
}
