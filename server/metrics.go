package server

import (
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"

	"github.com/metasrv/metasrv/raftfsm"
)

// newRegistry returns a registry of its own, with the metrics of the process: nothing global is counted.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	// How long goroutines wait for a processor tells whether raft's timers can be kept.
	latencies := collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/sched/latencies:seconds$`)})
	r.MustRegister(collectors.NewGoCollector(latencies), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// rpcMetrics measures the gRPC services.
type rpcMetrics struct {
	duration *prometheus.HistogramVec
	// answered has the observers of the requests that are answered without an error, by method.
	answered    sync.Map
	openStreams *prometheus.GaugeVec
}

func newRPCMetrics(r prometheus.Registerer) *rpcMetrics {
	m := &rpcMetrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "metasrv_grpc_request_duration_seconds",
			Help:    "Time from the arrival of a request to its answer; of a stream, its life.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "code"}),
		openStreams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metasrv_grpc_open_streams",
			Help: "Streams that are open now.",
		}, []string{"method"}),
	}
	r.MustRegister(m.duration, m.openStreams)
	return m
}

// observe notes that a request was answered.
func (m *rpcMetrics) observe(method string, code codes.Code, elapsed time.Duration) {
	if code != codes.OK {
		m.duration.WithLabelValues(method, code.String()).Observe(elapsed.Seconds())
		return
	}
	observer, known := m.answered.Load(method)
	if !known {
		observer, _ = m.answered.LoadOrStore(method, m.duration.WithLabelValues(method, code.String()))
	}
	observer.(prometheus.Observer).Observe(elapsed.Seconds())
}

// nodeCollector shows a node's status.
type nodeCollector struct {
	node    Node
	metrics []nodeMetric
}

type nodeMetric struct {
	desc  *prometheus.Desc
	value func(raftfsm.Status) float64
}

func newNodeCollector(node Node) *nodeCollector {
	metric := func(name, help string, value func(raftfsm.Status) float64) nodeMetric {
		return nodeMetric{prometheus.NewDesc("metasrv_"+name, help, nil, nil), value}
	}
	return &nodeCollector{node: node, metrics: []nodeMetric{
		metric("raft_term", "Present raft term.", func(s raftfsm.Status) float64 { return float64(s.Term) }),
		metric("raft_applied_index", "Last raft index in the member's state.",
			func(s raftfsm.Status) float64 { return float64(s.AppliedIndex) }),
		metric("raft_flushed_index", "Last raft index in the member's durable image.",
			func(s raftfsm.Status) float64 { return float64(s.FlushedIndex) }),
		metric("state_revision", "Revision of the member's state.", func(s raftfsm.Status) float64 { return float64(s.Revision) }),
		metric("state_compared_index", "Last raft index at which the member found its state to be the same as another member's.",
			func(s raftfsm.Status) float64 { return float64(s.ComparedIndex) }),
		metric("state_split", "1 while members' states differ and no majority agrees on one, so that writes are refused, else 0.",
			func(s raftfsm.Status) float64 {
				if s.Split != "" {
					return 1
				}
				return 0
			}),
		metric("cluster_version", "Command version that every member knows.", func(s raftfsm.Status) float64 { return float64(s.ClusterVersion) }),
		metric("disk_free_bytes", "Free space on the disk of the member's data folder.",
			func(s raftfsm.Status) float64 { return float64(s.DiskFreeBytes) }),
		metric("disk_full", "1 while the member refuses writes for want of disk space, else 0.", func(s raftfsm.Status) float64 {
			if s.DiskFull != nil {
				return 1
			}
			return 0
		}),
		metric("feed_bytes", "Size of the changes that the member remembers for watches.",
			func(s raftfsm.Status) float64 { return float64(s.FeedBytes) }),
		metric("log_cache_bytes", "Size of the log entries that the member keeps in memory.",
			func(s raftfsm.Status) float64 { return float64(s.LogCacheBytes) }),
		metric("log_cache_entries", "Log entries that the member keeps in memory.",
			func(s raftfsm.Status) float64 { return float64(s.LogCacheEntries) }),
		metric("image_bytes", "Size of the member's durable image.", func(s raftfsm.Status) float64 { return float64(s.ImageBytes) }),
	}}
}

var isLeaderDesc = prometheus.NewDesc("metasrv_is_leader", "1 on the metasrv leader once it is ready, else 0.", nil, nil)

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(out chan<- *prometheus.Desc) {
	out <- isLeaderDesc
	for _, m := range c.metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	status := c.node.Status()
	for _, m := range c.metrics {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.value(status))
	}
	leads := 0.0
	if _, ok := c.node.Leadership(); ok {
		leads = 1
	}
	out <- prometheus.MustNewConstMetric(isLeaderDesc, prometheus.GaugeValue, leads)
}
