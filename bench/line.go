package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// figures is what the rounds of one measurement of one store amount to.
type figures struct {
	rounds     int
	perSecond  float64
	items      float64
	p50, p99   float64 // milliseconds; of p99 the worst round
	cpu        time.Duration
	errors     map[string]uint64
	operations uint64
}

func (f *figures) add(r *loadgen.Report, cpu time.Duration) {
	share := func(old, now float64) float64 { return (old*float64(f.rounds) + now) / float64(f.rounds+1) }
	f.perSecond, f.items = share(f.perSecond, r.PerSecond), share(f.items, r.ItemsPerSecond)
	f.p50, f.p99 = share(f.p50, r.LatencyMS.P50), max(f.p99, r.LatencyMS.P99)
	f.cpu = time.Duration(share(float64(f.cpu), float64(cpu)))
	f.rounds++
	f.operations += r.Operations
	if f.errors == nil {
		f.errors = map[string]uint64{}
	}
	for reason, n := range r.Errors {
		f.errors[reason] += n
	}
}

func (f *figures) micros() float64 { return float64(f.cpu.Nanoseconds()) / 1000 }

// failed returns what went wrong, empty where nothing did.
func (f *figures) failed(name string) string {
	var b strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(f.errors)) {
		fmt.Fprintf(&b, " %s_failed=%d:%q", name, f.errors[reason], reason)
	}
	return b.String()
}

// compared returns the line of a measurement of two stores; the values after a name are those of metasrv and of etcd.
func compared(what, label string, a, b *figures) string {
	line := fmt.Sprintf("%s %s=%.0f/s etcd=%.0f/s ratio=%.2f p50=%.2f/%.2f p99=%.1f/%.1f", what, label, a.perSecond, b.perSecond,
		ratio(a.perSecond, b.perSecond), a.p50, b.p50, a.p99, b.p99)
	if a.cpu > 0 && b.cpu > 0 {
		line += fmt.Sprintf(" cpu_us=%.1f/%.1f", a.micros(), b.micros())
	}
	return line + a.failed(label) + b.failed("etcd")
}

// alone returns the line of a measurement of one store.
func alone(what string, f *figures) string {
	line := fmt.Sprintf("%s %.0f/s", what, f.perSecond)
	if f.items > 0 {
		line += fmt.Sprintf(" items=%.0f/s", f.items)
	}
	line += fmt.Sprintf(" p50=%.2f p99=%.1f", f.p50, f.p99)
	if f.cpu > 0 {
		line += fmt.Sprintf(" cpu_us=%.1f", f.micros())
	}
	return line + f.failed("requests")
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
