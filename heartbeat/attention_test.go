package heartbeat

import (
	"testing"
	"testing/synctest"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// A metasrv leader that was paused takes no node for failed, suspect or down for what it slept through. From when it goes on, each
// has its chance to be heard.
func TestPauseIsNobodysSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		mustBeat(t, c.session(t), firstBeat(1, 1))
		attend := func(d time.Duration) {
			for begin := time.Now(); time.Since(begin) < d; time.Sleep(AttentionPeriod) {
				c.tracker.Attend()
			}
		}
		check := func(failed bool, want metasrvpb.NodeState) {
			t.Helper()
			now := time.Now()
			if all, _ := c.tracker.Failed(now); len(all) > 0 != failed || c.tracker.HasFailed(1, now) != failed {
				t.Errorf("failed are %v", all)
			}
			status, err := c.tracker.Node(c.View(), 1, now)
			if err != nil || status.State != want {
				t.Errorf("the node is %v, want %v: %v", status.State, want, err)
			}
			if silent := c.tracker.Silence(status, now) >= c.tracker.cfg.Doubtful(); silent != failed {
				t.Errorf("it is silent for %v", c.tracker.Silence(status, now))
			}
		}
		const live, suspect, down = metasrvpb.NodeState_NODE_STATE_LIVE, metasrvpb.NodeState_NODE_STATE_SUSPECT, metasrvpb.NodeState_NODE_STATE_DOWN
		attend(time.Second)
		time.Sleep(15 * time.Second)
		check(false, live) // whoever looks first notices the pause
		attend(2 * time.Second)
		check(false, live)
		attend(2 * time.Second)
		check(true, suspect) // it had its chance
		attend(7 * time.Second)
		check(true, down)
	})
}
