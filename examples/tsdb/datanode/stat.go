package datanode

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/process"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	readUnit  = 4 << 10 // bytes of one read capacity unit
	writeUnit = 1 << 10 // bytes of one write capacity unit
)

// counters count capacity units since they were last taken.
type counters struct {
	rcus, wcus atomic.Uint64
}

// units returns how many capacity units a request of the given bytes takes: at least one.
func units(bytes, unit int) uint64 {
	return uint64(max(1, (bytes+unit-1)/unit)) //nolint:gosec // positive
}

func (s *Service) countWrite(g *region, rows *tsdbpb.RowBatch) {
	n := units(proto.Size(rows), writeUnit)
	g.counters.wcus.Add(n)
	s.counters.wcus.Add(n)
}

func (s *Service) countRead(g *region, bytes int) {
	n := units(bytes, readUnit)
	g.counters.rcus.Add(n)
	s.counters.rcus.Add(n)
}

const (
	// measureTime is how long replicas are measured for one report: the lease of the node waits for it. What wasn't measured
	// then is in a later one.
	measureTime = 100 * time.Millisecond
	// measureEvery is how old the figures of a replica may be. Reports follow each other quickly while roles change, when nobody
	// has time for this.
	measureEvery = 500 * time.Millisecond
)

// measured are figures of a replica that take a query and system calls to get.
type measured struct {
	at         time.Time
	rows, size uint64
}

func (g *region) measure(ctx context.Context, now time.Time) {
	rows, err := g.replica.Rows(ctx)
	if err != nil {
		g.service.logger.Warn("rows not counted", "region_id", g.replica.Region(), "replica_id", g.replica.ID(), "error", err)
	}
	g.measured = measured{at: now, rows: rows, size: g.replica.Size()}
}

// report returns the replicas as they stand, and the node's counters since the previous report. Damaged replicas
// are left out: the node can't serve them, so it doesn't have them.
func (s *Service) report(ctx context.Context) client.HeartbeatReport {
	tables := map[metasrv.TableID]bool{}
	report := client.HeartbeatReport{}
	began := time.Now()
	for _, r := range s.store.Replicas() {
		if r.Damage() != nil {
			continue
		}
		g := s.region(r)
		if s.isClosed(r) {
			continue
		}
		if now := time.Now(); now.Sub(began) < measureTime && now.Sub(g.measured.at) >= measureEvery {
			g.measure(ctx, now)
		}
		d := r.Definition()
		tables[r.Region().Table()] = true
		stat := &metasrvpb.RegionStat{
			RegionId: uint64(r.Region()), ReplicaId: uint64(r.ID()), TableName: d.GetTableName(),
			Rcus: g.counters.rcus.Swap(0), Wcus: g.counters.wcus.Swap(0),
			ApproximateSize: g.measured.size, ApproximateRows: g.measured.rows,
		}
		state := r.State() // at one moment
		stat.Role, stat.LeaderEpoch, stat.ConfVersion, stat.Demoted = state.Role, state.LeaderEpoch, state.ConfVersion, state.Demoted
		stat.LogEpoch, stat.LogSequence = state.LogEpoch, state.StoredSeq
		if l := g.leadership(); l != nil {
			stat.ReplicaStates = l.states()
		}
		report.RegionStats = append(report.RegionStats, stat)
	}
	report.NodeStat = &metasrvpb.NodeStat{
		Rcus: s.counters.rcus.Swap(0), Wcus: s.counters.wcus.Swap(0),
		TableNum: uint64(len(tables)), RegionNum: uint64(len(report.RegionStats)),
	}
	return report
}

// machine reads gauges of the machine and of this process. What the system doesn't tell stays 0.
type machine struct {
	folder  string
	process *process.Process
	at      time.Time
	read    uint64
	written uint64
}

func newMachine(ctx context.Context, folder string) *machine {
	m := &machine{folder: folder}
	if p, err := process.NewProcessWithContext(ctx, int32(os.Getpid())); err == nil { //nolint:gosec // a pid fits
		m.process = p
	}
	m.fill(ctx, &metasrvpb.NodeStat{}) // rates and shares are since the previous call
	return m
}

// fill sets the gauges of stat; rates are over the time since the previous call.
func (m *machine) fill(ctx context.Context, stat *metasrvpb.NodeStat) {
	if percent, err := cpu.PercentWithContext(ctx, 0, false); err == nil && len(percent) == 1 {
		stat.CpuUsage = percent[0] / 100
	}
	if l, err := load.AvgWithContext(ctx); err == nil {
		stat.Load = l.Load1
	}
	if d, err := disk.UsageWithContext(ctx, m.folder); err == nil {
		stat.DiskUsedBytes = d.Used
	}
	if m.process == nil {
		return
	}
	if info, err := m.process.MemoryInfoWithContext(ctx); err == nil {
		stat.MemoryUsedBytes = info.RSS
	}
	io, err := m.process.IOCountersWithContext(ctx)
	if err != nil {
		return
	}
	now := time.Now()
	if seconds := now.Sub(m.at).Seconds(); !m.at.IsZero() && seconds > 0 {
		stat.ReadIoRate = float64(io.DiskReadBytes-min(m.read, io.DiskReadBytes)) / seconds
		stat.WriteIoRate = float64(io.DiskWriteBytes-min(m.written, io.DiskWriteBytes)) / seconds
	}
	m.at, m.read, m.written = now, io.DiskReadBytes, io.DiskWriteBytes
}

// capacity returns what the machine has. Capacity units per second are not known.
func capacity(ctx context.Context, folder string) *metasrvpb.Capacity {
	c := &metasrvpb.Capacity{}
	if d, err := disk.UsageWithContext(ctx, folder); err == nil {
		c.DiskBytes = d.Total
	}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		c.MemoryBytes = m.Total
	}
	if n, err := cpu.CountsWithContext(ctx, true); err == nil {
		c.CpuCores = uint32(max(0, n)) //nolint:gosec // a few
	}
	return c
}
