package loadgen

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Result is what a run measured, without its warm-up.
type Result struct {
	// Began and Ended bound the time that was measured.
	Began, Ended time.Time
	// Latency has the operations that succeeded.
	Latency Histogram
	// Errors counts those that failed, by reason.
	Errors map[string]uint64
	// LongestPause is the longest time in which no operation of any client succeeded.
	LongestPause time.Duration
}

func (r *run) result() *Result {
	res := &Result{Began: r.measureFrom, Ended: r.measureFrom, Errors: map[string]uint64{}}
	for i := range r.clients {
		c := &r.clients[i]
		res.Latency.Merge(&c.latency)
		for reason, n := range c.errors {
			res.Errors[reason] += n
		}
		res.LongestPause = max(res.LongestPause, c.longestPause)
		if c.lastEnd.After(res.Ended) {
			res.Ended = c.lastEnd
		}
	}
	if !r.end.IsZero() && !time.Now().Before(r.end) {
		res.Ended = r.end
		res.LongestPause = max(res.LongestPause, r.end.Sub(r.began)-time.Duration(r.lastSuccess.Load()))
	}
	return res
}

// PerSecond returns the rate of operations that succeeded.
func (r *Result) PerSecond() float64 {
	if d := r.Ended.Sub(r.Began).Seconds(); d > 0 {
		return float64(r.Latency.Count()) / d
	}
	return 0
}

// Report is a result in words and numbers for programs. Latencies are in milliseconds.
type Report struct {
	Name     string         `json:"name"`
	Settings map[string]any `json:"settings"`

	Began      time.Time `json:"began"`
	Ended      time.Time `json:"ended"`
	Seconds    float64   `json:"seconds"`
	Operations uint64    `json:"operations"`
	PerSecond  float64   `json:"per_second"`
	// Items is what operations handle several of, such as regions; empty where they handle one each.
	Items          string  `json:"items,omitempty"`
	ItemsPerSecond float64 `json:"items_per_second,omitempty"`

	LatencyMS      Latencies         `json:"latency_ms"`
	LongestPauseMS float64           `json:"longest_pause_ms"`
	Errors         map[string]uint64 `json:"errors"`
	// Figures are what else was measured.
	Figures []Figure `json:"figures,omitempty"`
	// LeftBehind names what the run did not remove.
	LeftBehind []string `json:"left_behind"`

	bars []Bar
}

// Figure is a number that was measured. Its name says what it is, in which unit.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Latencies are of operations that succeeded, in milliseconds.
type Latencies struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Report returns the result of operations that handled a number of items each, of the given kind.
func (r *Result) Report(name string, settings map[string]any, items string, perOperation int) *Report {
	l := &r.Latency
	rep := &Report{
		Name: name, Settings: settings, Began: r.Began, Ended: r.Ended, Seconds: r.Ended.Sub(r.Began).Seconds(),
		Operations: l.Count(), PerSecond: r.PerSecond(), Items: items,
		LatencyMS: Latencies{
			Min: ms(l.Min()), Mean: ms(l.Mean()), P50: ms(l.Quantile(0.5)), P90: ms(l.Quantile(0.9)),
			P99: ms(l.Quantile(0.99)), P999: ms(l.Quantile(0.999)), Max: ms(l.Max()),
		},
		LongestPauseMS: ms(r.LongestPause), Errors: r.Errors, LeftBehind: []string{}, bars: l.Bars(),
	}
	if items != "" {
		rep.ItemsPerSecond = rep.PerSecond * float64(perOperation)
	}
	return rep
}

func roundTo3(v float64) float64 { return math.Round(v*1000) / 1000 }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// WriteJSON writes the report as one JSON document.
func (r *Report) WriteJSON(w io.Writer) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

const barWidth = 40

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %.0f/s", r.Name, r.PerSecond)
	if r.Items != "" {
		fmt.Fprintf(&b, ", %.0f %s/s", r.ItemsPerSecond, r.Items)
	}
	fmt.Fprintf(&b, "  (%d in %.1f s)\n", r.Operations, r.Seconds)
	l := r.LatencyMS
	fmt.Fprintf(&b, "latency in ms: p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f  mean %.2f\n",
		l.P50, l.P90, l.P99, l.P999, l.Max, l.Mean)
	fmt.Fprintf(&b, "longest time without a success: %.0f ms\n", r.LongestPauseMS)
	most := uint64(0)
	for _, bar := range r.bars {
		most = max(most, bar.Count)
	}
	for _, bar := range r.bars {
		fmt.Fprintf(&b, "  up to %10s %10d %s\n", bar.UpTo, bar.Count, strings.Repeat("▇", int(bar.Count*barWidth/most))) //nolint:gosec // at most barWidth
	}
	for _, f := range r.Figures {
		fmt.Fprintf(&b, "%s: %s\n", strings.ReplaceAll(f.Name, "_", " "), strconv.FormatFloat(roundTo3(f.Value), 'f', -1, 64))
	}
	reasons := slices.SortedFunc(maps.Keys(r.Errors), func(x, y string) int {
		return cmp.Or(cmp.Compare(r.Errors[y], r.Errors[x]), cmp.Compare(x, y))
	})
	for _, reason := range reasons {
		fmt.Fprintf(&b, "failed: %d %s\n", r.Errors[reason], reason)
	}
	for _, what := range r.LeftBehind {
		fmt.Fprintf(&b, "left behind: %s\n", what)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
