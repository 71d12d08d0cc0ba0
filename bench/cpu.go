package main

import (
	"context"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// samplePeriod is how often the CPU time of the servers is read. It bounds the error at each end of a measurement.
const samplePeriod = 50 * time.Millisecond

// meter reads the CPU time of servers while a load runs, since only the load knows when its warm-up is over.
type meter struct {
	pids  []int
	times []time.Time
	cpu   []time.Duration
}

// measure runs a load on servers and returns its report with the CPU time that they used per operation, 0 where that
// can't be known.
func measure(ctx context.Context, pids []int, load func() (*loadgen.Report, error)) (*loadgen.Report, time.Duration, error) {
	m := &meter{pids: pids}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m.sample() && sleep(ctx, samplePeriod) {
		}
	}()
	r, err := load()
	cancel()
	<-done
	if err != nil || r.Operations == 0 {
		return r, 0, err
	}
	return r, (m.at(r.Ended) - m.at(r.Began)) / time.Duration(r.Operations), nil
}

func (m *meter) sample() bool {
	var sum time.Duration
	for _, pid := range m.pids {
		t, ok := cpuTime(pid)
		if !ok {
			return false
		}
		sum += t
	}
	m.times, m.cpu = append(m.times, time.Now()), append(m.cpu, sum)
	return true
}

// at returns the CPU time that was used until t, between two samples by their share.
func (m *meter) at(t time.Time) time.Duration {
	for i := range m.times {
		if m.times[i].Before(t) {
			continue
		}
		if i == 0 {
			return m.cpu[0]
		}
		share := float64(t.Sub(m.times[i-1])) / float64(m.times[i].Sub(m.times[i-1]))
		return m.cpu[i-1] + time.Duration(share*float64(m.cpu[i]-m.cpu[i-1]))
	}
	if len(m.cpu) == 0 {
		return 0
	}
	return m.cpu[len(m.cpu)-1]
}
