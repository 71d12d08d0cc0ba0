package heartbeat

import (
	"math"
	"testing"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestPeriod(t *testing.T) {
	const base = 1_700_000_000_000
	at := func(from, to uint64) *metasrvpb.TimeInterval {
		return &metasrvpb.TimeInterval{StartTimestampMillis: base + from, EndTimestampMillis: base + to}
	}
	hour := uint64(time.Hour.Milliseconds())
	for _, c := range []struct {
		name    string
		iv      *metasrvpb.TimeInterval
		lastEnd uint64
		elapsed time.Duration
		want    time.Duration
		end     uint64
		counted Anomalies
	}{
		{name: "first", iv: at(0, 1000), want: time.Second, end: base + 1000},
		{name: "next", iv: at(1000, 2000), lastEnd: base + 1000, elapsed: time.Second, want: time.Second, end: base + 2000},
		{name: "late on its way", iv: at(1000, 2000), lastEnd: base + 1000, elapsed: 2800 * time.Millisecond, want: time.Second, end: base + 2000},
		{name: "early after a late one", iv: at(1000, 2000), lastEnd: base + 1000, elapsed: 10 * time.Millisecond, want: time.Second, end: base + 2000},
		{name: "slack", iv: at(1090, 2000), lastEnd: base + 1000, elapsed: time.Second, want: 910 * time.Millisecond, end: base + 2000},
		{name: "gap", iv: at(3000, 4000), lastEnd: base + 1000, elapsed: 3 * time.Second, want: time.Second, end: base + 4000, counted: Anomalies{PeriodGaps: 1}},
		{name: "overlap", iv: at(0, 2000), lastEnd: base + 1000, elapsed: time.Second, want: 2 * time.Second, end: base + 2000, counted: Anomalies{PeriodOverlaps: 1}},
		{name: "the same again", iv: at(0, 1000), lastEnd: base + 1000, elapsed: time.Second, want: time.Second, end: base + 1000, counted: Anomalies{PeriodOverlaps: 1}},
		{name: "not said", elapsed: 2 * time.Second, want: 2 * time.Second},
		{name: "not said, first", want: 0},
		{name: "empty", iv: at(1000, 1000), elapsed: time.Second, want: time.Second, counted: Anomalies{BadPeriods: 1}},
		{name: "inverted", iv: at(1000, 500), lastEnd: base + 1000, elapsed: time.Second, want: time.Second, counted: Anomalies{BadPeriods: 1}},
		{name: "inverted, first", iv: at(1000, 500), want: 0, counted: Anomalies{BadPeriods: 1}},
		{name: "since 1970", iv: &metasrvpb.TimeInterval{EndTimestampMillis: base}, elapsed: time.Second, want: time.Second, counted: Anomalies{BadPeriods: 1}},
		{name: "clock set forward", iv: at(0, hour), lastEnd: base, elapsed: time.Second, want: time.Second, end: base + hour, counted: Anomalies{BadPeriods: 1}},
		{name: "after the clock was set back", iv: at(0, 1000), lastEnd: base + hour, elapsed: time.Second, want: time.Second, end: base + 1000, counted: Anomalies{PeriodOverlaps: 1}},
		{name: "long absence", iv: at(0, hour), lastEnd: base, elapsed: time.Hour, want: time.Hour, end: base + hour},
		{name: "short", iv: at(0, 1), lastEnd: base, elapsed: time.Second, want: 250 * time.Millisecond, end: base + 1},
		{name: "overflow", iv: &metasrvpb.TimeInterval{StartTimestampMillis: 1, EndTimestampMillis: math.MaxUint64}, elapsed: time.Second, want: time.Second, counted: Anomalies{BadPeriods: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var counted Anomalies
			got, end := DefaultConfig().period(c.iv, c.lastEnd, c.elapsed, &counted)
			if got != c.want || end != c.end || counted != c.counted {
				t.Errorf("period %v, end %d, counted %+v; want %v, %d, %+v", got, end, counted, c.want, c.end, c.counted)
			}
		})
	}
}

func TestPerSecond(t *testing.T) {
	if got := perSecond(30, 2*time.Second); got != 15 {
		t.Errorf("30 in 2s: %v", got)
	}
	if got := perSecond(30, 0); got != 0 {
		t.Errorf("30 in an unknown time: %v", got)
	}
}

func TestSanitize(t *testing.T) {
	stat := &metasrvpb.NodeStat{CpuUsage: math.NaN(), Load: math.Inf(1), ReadIoRate: -1, WriteIoRate: 3}
	sanitize(stat)
	if stat.CpuUsage != 0 || stat.Load != 0 || stat.ReadIoRate != 0 || stat.WriteIoRate != 3 {
		t.Errorf("got %v", stat)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string]func(*Config){
		"no interval":                 func(c *Config) { c.Interval = 0 },
		"suspect at the next beat":    func(c *Config) { c.SuspectAfter = c.Interval },
		"down before it is suspected": func(c *Config) { c.DownAfter = c.SuspectAfter },
		"judges before it can know":   func(c *Config) { c.Grace = c.DownAfter - 1 },
	} {
		c := DefaultConfig()
		broken(&c)
		if c.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := NewTracker(c, 1, start); err == nil {
			t.Errorf("%s: a tracker was made", name)
		}
	}
}
