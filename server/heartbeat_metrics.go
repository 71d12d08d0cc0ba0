package server

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metasrv/metasrv/heartbeat"
)

// heartbeatMetrics counts heartbeats and leases over all terms of the member.
type heartbeatMetrics struct {
	heartbeat.Counters
	duration prometheus.Histogram
}

func newAnswerHistogram() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "metasrv_heartbeat_answer_duration_seconds",
		Help:    "Time from the arrival of a heartbeat to its answer.",
		Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
	})
}

// answered notes that a heartbeat which arrived at a time has been answered.
func (m *heartbeatMetrics) answered(arrived time.Time) {
	m.duration.Observe(time.Since(arrived).Seconds())
}

func (m *heartbeatMetrics) register(r prometheus.Registerer) {
	r.MustRegister(m.duration)
	for _, c := range []struct {
		name, help string
		labels     prometheus.Labels
		value      *atomic.Uint64
	}{
		{"heartbeat_requests_total", "Heartbeats that were taken.", nil, &m.Beats},
		{"heartbeat_requests_superseded_total", "Heartbeats that were left without an answer because a newer one of their node was there.", nil, &m.Superseded},
		{"heartbeat_region_reports_total", "Replicas that were reported in heartbeats, each time one was.", nil, &m.Lines},
		{"heartbeat_digest_mismatches_total", "Heartbeats whose digest was not that of the reports before.", nil, &m.Mismatches},
		{"heartbeat_full_reports_asked_total", "Answers that asked for a full report.", nil, &m.FullAsked},
		{"lease_grants_total", "Leases granted to nodes: by what they report, or by its digest alone.", prometheus.Labels{"by": "report"}, &m.Grants},
		{"lease_grants_total", "Leases granted to nodes: by what they report, or by its digest alone.", prometheus.Labels{"by": "digest"}, &m.Presumed},
		{"lease_ungranted_regions_total", "Region leaders that a lease left out, each time: the state says otherwise, or the leadership is being taken away.",
			prometheus.Labels{"reason": "state"}, &m.Refused},
		{"lease_ungranted_regions_total", "Region leaders that a lease left out, each time: the state says otherwise, or the leadership is being taken away.",
			prometheus.Labels{"reason": "withheld"}, &m.Withheld},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "metasrv_" + c.name, Help: c.help, ConstLabels: c.labels},
			func() float64 { return float64(c.value.Load()) }))
	}
}
