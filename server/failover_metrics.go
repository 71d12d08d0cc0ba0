package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metasrv/metasrv/router"
)

// Outcomes of elections after a failure.
const (
	outcomeElected = "elected"
	outcomeUnclean = "elected_unclean"
	outcomeBack    = "node_came_back"
	outcomeRefused = "refused"
	outcomeShrunk  = "left_in_sync_set"
)

// failoverMetrics counts what became of the regions of failed nodes, and shows what is left.
type failoverMetrics struct {
	services  *services
	elections *prometheus.CounterVec

	// terms counts those of this member as the metasrv leader, failures the nodes that were found to have failed in them.
	terms, failures prometheus.Counter

	withoutLeader, failedNodes, halted, withheld *prometheus.Desc
}

func newFailoverMetrics(s *services) *failoverMetrics {
	m := &failoverMetrics{
		services: s,
		elections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metasrv_failover_regions_total",
			Help: "Regions that this member, as the metasrv leader, took from replicas that could not serve them, by outcome.",
		}, []string{"outcome"}),
		terms: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metasrv_leader_terms_total", Help: "Terms that this member has begun as the metasrv leader.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metasrv_node_failures_total",
			Help: "Datanodes that this member, as the metasrv leader, has found to have failed: whose leases had ended while nothing was heard of them.",
		}),
		withoutLeader: prometheus.NewDesc("metasrv_regions_without_leader",
			"Regions whose leader can't serve them, by why no other replica does. On the metasrv leader.", []string{"reason"}, nil),
		failedNodes: prometheus.NewDesc("metasrv_failed_nodes",
			"Datanodes that lead regions and whose leases have ended while nothing is heard of them. On the metasrv leader.", nil, nil),
		halted: prometheus.NewDesc("metasrv_failover_halted",
			"1 while no region is given to another datanode, by why: maintenance, storm or quarantine. On the metasrv leader.", []string{"reason"}, nil),
		withheld: prometheus.NewDesc("metasrv_withheld_grants",
			"Regions that are kept out of every lease, because their leadership is being taken away. On the metasrv leader.", nil, nil),
	}
	for _, outcome := range []string{outcomeElected, outcomeUnclean, outcomeBack, outcomeRefused, outcomeShrunk} {
		m.elections.WithLabelValues(outcome)
	}
	return m
}

func (m *failoverMetrics) count(outcome string) { m.elections.WithLabelValues(outcome).Inc() }

// Describe implements prometheus.Collector.
func (m *failoverMetrics) Describe(out chan<- *prometheus.Desc) {
	m.elections.Describe(out)
	m.terms.Describe(out)
	m.failures.Describe(out)
	for _, d := range []*prometheus.Desc{m.withoutLeader, m.failedNodes, m.halted, m.withheld} {
		out <- d
	}
}

// Collect implements prometheus.Collector. Only the metasrv leader knows of failures.
func (m *failoverMetrics) Collect(out chan<- prometheus.Metric) {
	m.elections.Collect(out)
	m.terms.Collect(out)
	m.failures.Collect(out)
	t := m.services.term.Load()
	if t == nil {
		return
	}
	look := t.failover.Load()
	if look == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(m.failedNodes, len(look.failed))
	gauge(m.withheld, t.tracker.Withheld())
	for _, kind := range []string{haltMaintenance, haltStorm, haltQuarantine} {
		on := 0
		if look.halt.kind == kind {
			on = 1
		}
		gauge(m.halted, on, kind)
		gauge(m.withoutLeader, look.leaderless[kind], kind)
	}
	for _, why := range []string{router.StandstillUnleased, router.StandstillGroup, router.StandstillSilent, router.StandstillLost} {
		gauge(m.withoutLeader, look.leaderless[why], why)
	}
}
