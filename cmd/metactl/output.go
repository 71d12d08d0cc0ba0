package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	formatTable = "table"
	formatJSON  = "json"

	// none stands where a table has nothing to show.
	none = "-"
)

// What the client library logs while it looks for a leader, explain says better.
var discardLogger = slog.New(slog.DiscardHandler)

// show prints m as JSON, or by the given function as tables. With a stale answer it says how old that may be.
func (a *app) show(m proto.Message, tables func(w io.Writer)) error {
	if r, ok := m.(interface {
		GetHeader() *metasrvpb.ResponseHeader
	}); ok && a.stale && a.format != formatJSON {
		fmt.Fprintln(a.err, staleness(r.GetHeader()))
	}
	if a.format == formatJSON {
		b, err := toJSON(m)
		if err != nil {
			return err
		}
		return writeJSON(a.out, b)
	}
	// Collected first, so that a reader that goes away is noticed in one place.
	var buf bytes.Buffer
	tables(&buf)
	_, err := a.out.Write(buf.Bytes())
	return err
}

// staleness says how old the answer to a stale read may be.
func staleness(h *metasrvpb.ResponseHeader) string {
	if h.AgeMs == nil {
		return fmt.Sprintf("%s answered, which does not know how old its state is: it has reached no metasrv leader since it started", h.GetMember())
	}
	age := time.Duration(min(h.GetAgeMs(), math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	return fmt.Sprintf("%s answered, from a state that lacks at most the changes of the last %s", h.GetMember(), age)
}

// toJSON returns the JSON form that protobuf defines: 64-bit integers are strings, enums are names. Fields
// with default values are there, so that a program finds the same keys each time.
func toJSON(m proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
}

// writeJSON writes v indented. protojson varies its white space from build to build on purpose.
func writeJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// grid is a table with a header.
type grid struct{ w *tabwriter.Writer }

func newGrid(w io.Writer, columns ...string) *grid {
	g := &grid{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(columns) > 0 {
		g.row(columns...)
	}
	return g
}

func (g *grid) row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = none
		}
	}
	fmt.Fprintln(g.w, strings.Join(cells, "\t"))
}

func (g *grid) end() { g.w.Flush() }

// ago returns how long ago something was, in its largest unit.
func ago(d time.Duration) string { return span(d) + " ago" }

// span returns a length of time in at most two units.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < day:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", d/day, int((d % day).Hours()))
}

func millis(ms uint64) time.Duration { return time.Duration(ms) * time.Millisecond }

// size returns a number of bytes in its largest binary unit.
func size(bytes uint64) string {
	const units = "KMGTPE"
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	f, i := float64(bytes)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// date returns a wall-clock time of the API in UTC.
func date(ms int64) string {
	if ms == 0 {
		return none
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z")
}

// label returns the part of an enum's name that tells its values apart, in lower case.
func label(enum fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(enum.String(), prefix))
}

// phrase is label with spaces for underscores.
func phrase(enum fmt.Stringer, prefix string) string {
	return strings.ReplaceAll(label(enum, prefix), "_", " ")
}

// plural returns a number with its noun.
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
