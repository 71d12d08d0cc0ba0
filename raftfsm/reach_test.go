package raftfsm

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Entries for a member that doesn't answer wait for its next answer, however long it is away, and go on at once then.
func TestEntriesWaitForTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReach()
		var leads atomic.Bool
		leads.Store(true)
		r.setWanted(func(raft.ServerID, uint64) bool { return leads.Load() })
		r.await("b", 1) // never failed
		r.note("b", errors.New("no route"))
		sent := make(chan time.Time, 1)
		send := func() {
			go func() {
				r.await("b", 1)
				sent <- time.Now()
			}()
		}
		send()
		time.Sleep(time.Hour)
		if len(sent) != 0 {
			t.Fatal("entries were sent to a member that doesn't answer")
		}
		back := time.Now()
		r.note("b", nil)
		if at := <-sent; at != back {
			t.Errorf("entries were sent %s after the member was back", at.Sub(back))
		}
		r.await("b", 1)

		r.note("b", errors.New("no route"))
		send()
		synctest.Wait()
		leads.Store(false)
		<-sent // nobody waits in a term that is over
		leads.Store(true)
		send()
		synctest.Wait()
		r.close()
		<-sent
	})
}

// What raft sends to say who leads is told from what carries entries or a commit index.
func TestHeartbeatsAreKnown(t *testing.T) {
	if !isHeartbeat(&raft.AppendEntriesRequest{Term: 3}) || isHeartbeat(&raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, PrevLogTerm: 2}) {
		t.Error("a heartbeat was taken for entries, or entries for a heartbeat")
	}
}
