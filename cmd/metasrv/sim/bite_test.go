//go:build broken

package sim

import (
	"os"
	"testing"
	"time"

	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
)

// biteLimit is the real time in which each fault must be found.
const biteLimit = 300 * time.Second

// A check that finds nothing proves nothing: each of these builds is broken in one place, and that must be seen.
func TestCheckerBites(t *testing.T) {
	illegal := func(r *linear.Report) bool { return len(r.Illegal) > 0 }
	for fault, test := range map[string]struct {
		what string
		seen func(*linear.Report) bool
	}{
		"proof":    {"a metasrv leader answers without a proof that it still leads", illegal},
		"follower": {"a member that follows answers from its own state", illegal},
		"once":     {"a request is executed again when it is repeated under its id", illegal},
		"cut":      {"the values of a flush are of another moment than its index", (*linear.Report).Failed},
		"clock":    {"a new metasrv leader's clock runs an hour ahead", (*linear.Report).Failed},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Setenv("METASRV_BROKEN", fault)
			if os.Getenv("LINEAR_OUT") == "" {
				t.Setenv("LINEAR_OUT", t.TempDir())
			}
			began := time.Now()
			for seed := number(t, "FIRST", 1); ; seed++ {
				if r := judge(t, newSchedule(seed)); test.seen(r) {
					t.Logf("%s: found in schedule %d after %s: %s", test.what, seed, time.Since(began).Round(time.Millisecond), r)
					return
				}
				if time.Since(began) > biteLimit {
					t.Fatalf("%s: not found in %d schedules", test.what, seed)
				}
			}
		})
	}
}
