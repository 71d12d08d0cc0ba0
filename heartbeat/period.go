package heartbeat

import (
	"math"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// maxPeriod is the longest time that one beat's counters are believed to cover. What is longer is a clock that
// was set, or a start that was never filled in.
const maxPeriod = 24 * time.Hour

// Anomalies count beats that were not as they should be. They only rise.
type Anomalies struct {
	// SequenceGaps counts beats that were lost on their way: numbers that never arrived on a stream.
	SequenceGaps uint64
	// SequenceRepeats counts beats with a number that had arrived before. They count as signs of life only.
	SequenceRepeats uint64
	// PeriodGaps counts report intervals that began after the end of the one before.
	PeriodGaps uint64
	// PeriodOverlaps counts report intervals that began before the end of the one before.
	PeriodOverlaps uint64
	// BadPeriods counts report intervals that can't be true: empty, inverted, or longer than the time since
	// the last report. The time between the arrivals is used instead.
	BadPeriods uint64
}

func (a *Anomalies) add(b Anomalies) {
	a.SequenceGaps += b.SequenceGaps
	a.SequenceRepeats += b.SequenceRepeats
	a.PeriodGaps += b.PeriodGaps
	a.PeriodOverlaps += b.PeriodOverlaps
	a.BadPeriods += b.BadPeriods
}

// period finds the length of the time that a beat's counters cover. lastEnd is the end of the period before
// by the node's clock in ms, 0 where none is known; elapsed is the time since the report before arrived, by
// the metasrv leader's clock, 0 where there was none. It returns 0 where no length can be told.
//
// The length is the node's own, and overlaps don't change it: counters that a node sends again, because it
// doesn't know that they arrived, come with the longer period that they then cover, so the rate stays true.
// The node's clock may be set at any time, so a period that is far longer than the time since its last report
// is not believed. Very short periods are stretched to a quarter of the heartbeat interval: a single write in
// a millisecond is no load of 1,000 a second.
func (c Config) period(iv *metasrvpb.TimeInterval, lastEnd uint64, elapsed time.Duration, a *Anomalies) (length time.Duration, end uint64) {
	start, end := iv.GetStartTimestampMillis(), iv.GetEndTimestampMillis()
	length = elapsed
	switch {
	case start == 0 && end == 0:
		// The node doesn't say.
	case end <= start || end-start > uint64(maxPeriod.Milliseconds()):
		a.BadPeriods++
		end = 0
	default:
		said := time.Duration(end-start) * time.Millisecond //nolint:gosec // at most maxPeriod
		if elapsed > 0 && said > elapsed+c.SuspectAfter {
			a.BadPeriods++
			break
		}
		length = said
		slack := uint64(c.Interval.Milliseconds()) / 10
		switch {
		case lastEnd == 0:
		case start > lastEnd+slack:
			a.PeriodGaps++
		case start+slack < lastEnd:
			a.PeriodOverlaps++
		}
	}
	if length <= 0 {
		return 0, end
	}
	return max(length, c.Interval/4), end
}

// perSecond returns the rate of a count over a time, 0 where the time is unknown.
func perSecond(count uint64, length time.Duration) float64 {
	if length <= 0 {
		return 0
	}
	return float64(count) / length.Seconds()
}

// sanitize makes the gauges of a node numbers that can be compared and added up.
func sanitize(stat *metasrvpb.NodeStat) {
	for _, gauge := range []*float64{&stat.CpuUsage, &stat.Load, &stat.ReadIoRate, &stat.WriteIoRate} {
		if math.IsNaN(*gauge) || math.IsInf(*gauge, 0) || *gauge < 0 {
			*gauge = 0
		}
	}
}
