package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

func TestMeterReadsBetweenSamples(t *testing.T) {
	zero := time.Unix(1000, 0)
	m := &meter{}
	for i, cpu := range []time.Duration{0, 100, 300} {
		m.times = append(m.times, zero.Add(time.Duration(i)*time.Second))
		m.cpu = append(m.cpu, cpu)
	}
	for after, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, 500 * time.Millisecond: 50, time.Second: 100, 1500 * time.Millisecond: 200, time.Minute: 300,
	} {
		if got := m.at(zero.Add(after)); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
	if got := (&meter{}).at(zero); got != 0 {
		t.Errorf("without samples: %v", got)
	}
}

func TestLines(t *testing.T) {
	a, b := &figures{}, &figures{}
	a.add(&loadgen.Report{PerSecond: 200, LatencyMS: loadgen.Latencies{P50: 1, P99: 10}}, 40*time.Microsecond)
	a.add(&loadgen.Report{PerSecond: 400, LatencyMS: loadgen.Latencies{P50: 3, P99: 6}}, 60*time.Microsecond)
	b.add(&loadgen.Report{PerSecond: 150, LatencyMS: loadgen.Latencies{P50: 4, P99: 20}, Errors: map[string]uint64{"Unavailable": 2}}, 0)
	want := `put clients=64 metasrv=300/s etcd=150/s ratio=2.00 p50=2.00/4.00 p99=10.0/20.0 etcd_failed=2:"Unavailable"`
	if got := compared("put clients=64", "metasrv", a, b); got != want {
		t.Errorf("line\n%s, want\n%s", got, want)
	}
	want = `empty 300/s p50=2.00 p99=10.0 cpu_us=50.0`
	if got := alone("empty", a); got != want {
		t.Errorf("line\n%s, want\n%s", got, want)
	}
}

func TestMedianAndWorst(t *testing.T) {
	if m, w := medianAndWorst([]time.Duration{5, 1, 3}); m != 3 || w != 5 {
		t.Errorf("%d, %d", m, w)
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-clients", "1,x"}, {"-only", "put,gut"}, {"-duration", "x"}} {
		var out bytes.Buffer
		if err := compare(t.Context(), args, &out); err == nil || !strings.Contains(err.Error(), args[0][1:]) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestAwaitedText(t *testing.T) {
	called := make(chan struct{})
	a := &awaited{text: "measuring", call: func() { close(called) }}
	for _, part := range []string{"creating; meas", "uring for 1s\n", "measuring still\n"} {
		if _, err := a.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	<-called
	a.work.Wait()
}
