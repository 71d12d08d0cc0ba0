//go:build broken

package sim

import (
	"os"
	"testing"
	"time"
)

// biteLimit is the real time in which each fault must be found.
const biteLimit = 150 * time.Second

// A check that finds nothing proves nothing: each of these builds is broken in one place, and clients must see it.
func TestCheckerBites(t *testing.T) {
	for fault, what := range map[string]string{
		"proof":    "a metasrv leader answers without a proof that it still leads",
		"follower": "a member that follows answers from its own state",
		"once":     "a request is executed again when it is repeated under its id",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Setenv("METASRV_BROKEN", fault)
			if os.Getenv("LINEAR_OUT") == "" {
				t.Setenv("LINEAR_OUT", t.TempDir())
			}
			began := time.Now()
			for seed := number(t, "FIRST", 1); ; seed++ {
				if r := judge(t, newSchedule(seed)); len(r.Illegal) > 0 {
					t.Logf("%s: found in schedule %d after %s: %s", what, seed, time.Since(began).Round(time.Millisecond), r)
					return
				}
				if time.Since(began) > biteLimit {
					t.Fatalf("%s: not found in %d schedules", what, seed)
				}
			}
		})
	}
}
