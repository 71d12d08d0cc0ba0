package loadgen

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func takes(d time.Duration) func(int) Op {
	return func(int) Op {
		return func(context.Context, uint64) error {
			time.Sleep(d)
			return nil
		}
	}
}

func mustRun(ctx context.Context, t *testing.T, cfg Config, operation func(int) Op) *Result {
	t.Helper()
	res, err := Run(ctx, cfg, operation)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestRunMeasuresAfterTheWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		res := mustRun(t.Context(), t, Config{Clients: 4, Warmup: time.Second, Duration: 10 * time.Second}, takes(10*time.Millisecond))
		if n := res.Latency.Count(); n != 4000 {
			t.Errorf("%d operations of 10 ms by 4 clients in 10 s", n)
		}
		if got := res.PerSecond(); got < 399 || got > 401 {
			t.Errorf("%v a second", got)
		}
		if !res.Began.Equal(began.Add(time.Second)) || res.LongestPause != 10*time.Millisecond {
			t.Errorf("measured from %v, began %v; longest pause %v", res.Began, began, res.LongestPause)
		}
	})
}

func TestRunCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var highest atomic.Uint64
		res := mustRun(t.Context(), t, Config{Clients: 3, Count: 100}, func(int) Op {
			return func(_ context.Context, n uint64) error {
				time.Sleep(time.Millisecond)
				if n > highest.Load() {
					highest.Store(n)
				}
				return nil
			}
		})
		if res.Latency.Count() != 100 || highest.Load() != 99 {
			t.Errorf("%d operations, the last has number %d", res.Latency.Count(), highest.Load())
		}
	})
}

// With a rate, an operation that stalls delays those that were due behind it, and their latency says so.
func TestRateCountsFromWhenAnOperationWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res := mustRun(t.Context(), t, Config{Clients: 1, Duration: 10 * time.Second, Rate: 100}, func(int) Op {
			return func(_ context.Context, n uint64) error {
				if n == 100 {
					time.Sleep(2 * time.Second)
				}
				return nil
			}
		})
		if res.Latency.Count() != 1000 {
			t.Errorf("%d operations of 100 a second in 10 s", res.Latency.Count())
		}
		if p90 := res.Latency.Quantile(0.9); p90 < 900*time.Millisecond || p90 > 1100*time.Millisecond {
			t.Errorf("p90 is %v", p90)
		}
		if res.LongestPause < 2*time.Second {
			t.Errorf("longest pause is %v", res.LongestPause)
		}
	})
}

func TestErrorsAreCountedByReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		cfg := Config{
			Clients: 2, Duration: 3 * time.Second, Reason: func(err error) string { return strings.ToUpper(err.Error()) },
			Progress: func(p Progress) {
				told++
				if p.Errors == 0 || p.Operations <= p.Errors || p.SincePerSecond < 1 {
					t.Errorf("progress %+v", p)
				}
			},
		}
		res := mustRun(t.Context(), t, cfg, func(int) Op {
			return func(_ context.Context, n uint64) error {
				time.Sleep(100 * time.Millisecond)
				if n%2 == 1 {
					return errors.New("odd")
				}
				return nil
			}
		})
		if res.Errors["ODD"] != 30 || res.Latency.Count() != 30 {
			t.Errorf("errors %v, %d operations", res.Errors, res.Latency.Count())
		}
		if told < 2 {
			t.Errorf("told %d times of progress", told)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		res := mustRun(ctx, t, Config{Clients: 2, Duration: time.Hour}, func(int) Op {
			return func(ctx context.Context, n uint64) error {
				if n < 10 {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
		})
		if res.Latency.Count() != 10 || len(res.Errors) != 0 {
			t.Errorf("%d operations, errors %v", res.Latency.Count(), res.Errors)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{{Clients: 0, Count: 1}, {Clients: 1}, {Clients: 1, Count: 1, Rate: -1}} {
		if _, err := Run(t.Context(), cfg, takes(0)); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
