package raftfsm

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// faulty executes what kv does, but stores another value under one key, as a broken memory would.
type faulty struct {
	state.Applier
	value string
}

func (f faulty) Apply(tx state.Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	result, err := f.Applier.Apply(tx, kind, payload)
	if _, ok := tx.Get("kv/fault"); ok && err == nil {
		tx.Put("kv/fault", []byte(f.value))
	}
	return result, err
}

// withFaults makes members store other values than the others.
func withFaults(values map[int]string) func(*cluster) {
	return func(c *cluster) {
		c.timing.Compare = 50 * time.Millisecond
		c.configure = func(i int, cfg *Config) {
			if value, ok := values[i]; ok {
				cfg.Appliers = []state.Applier{faulty{kv.NewApplier(), value}}
			}
		}
	}
}

// Rule 13: a member whose state a majority contradicts ends, and says what to do; the others go on.
func TestMemberWithAnotherStateEnds(t *testing.T) {
	for bad := range 3 { // one of them is the metasrv leader
		t.Run(string(rune('a'+bad)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { memberWithAnotherStateEnds(t, bad) })
		})
	}
}

func memberWithAnotherStateEnds(t *testing.T, bad int) {
	c := newCluster(t, 3, withFaults(map[int]string{bad: "wrong"}))
	_, leader := c.leader()
	if _, err := put(within(t, 10*time.Second), leader, "fault", "right"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the member with another state ends", func() bool { return c.nodes[bad].Err() != nil })
	for _, part := range []string{"majority", "member " + c.servers[bad].ID, "Keep its data folder", "new id"} {
		if err := c.nodes[bad].Err(); !strings.Contains(err.Error(), part) {
			t.Errorf("it does not say %q: %v", part, err)
		}
	}
	c.stop(bad)
	eventually(t, "the others take writes", func() bool {
		_, leader := c.leader()
		_, err := put(within(t, 10*time.Second), leader, "after", "1")
		return err == nil
	})
	for i, n := range c.nodes {
		if i != bad && n.Err() != nil {
			t.Errorf("member %s ended too: %v", c.servers[i].ID, n.Err())
		}
	}
}

// Rule 13: where no majority agrees writes stop, reads go on, and nobody ends.
func TestWritesStopWhereNoMajorityAgrees(t *testing.T) {
	synctest.Test(t, writesStopWhereNoMajorityAgrees)
}

func writesStopWhereNoMajorityAgrees(t *testing.T) {
	c := newCluster(t, 3, withFaults(map[int]string{0: "x", 1: "y"}))
	_, leader := c.leader()
	if _, err := put(within(t, 10*time.Second), leader, "fault", "z"); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		eventually(t, "every member notices", func() bool { return n.Status().Split != "" })
	}
	_, leader = c.leader()
	_, err := put(within(t, 10*time.Second), leader, "after", "1")
	if !errors.Is(err, metasrv.ErrStatesDiffer) || !strings.Contains(err.Error(), "Keep all data folders") || strings.Count(err.Error(), " on ") < 3 {
		t.Errorf("a write was answered with %v; want a refusal that names the three states and says what to do", err)
	}
	if _, err := leader.Barrier(within(t, 10*time.Second)); err != nil {
		t.Errorf("reads: %v", err)
	}
	for i, n := range c.nodes {
		if n.Err() != nil {
			t.Errorf("member %s ended: %v", c.servers[i].ID, n.Err())
		}
	}
	// Members can be replaced: that is how an operator ends it.
	gone := c.servers[1].ID
	if leader == c.nodes[1] {
		gone = c.servers[2].ID
	}
	if _, err := leader.RemoveMember(within(t, 10*time.Second), gone, Removal{Force: true, Shrink: true}, Change{}); err != nil {
		t.Errorf("member %s was not removed: %v", gone, err)
	}
	if _, recorded := machine.Removed(leader.View(), gone); !recorded {
		t.Errorf("that member %s was removed is not recorded", gone)
	}
	// A member that hears nobody has learned nothing.
	c.stop(1)
	c.stop(2)
	time.Sleep(10 * time.Second) // simulated: many comparisons
	if c.nodes[0].Status().Split == "" {
		t.Error("writes are allowed again because nobody answers")
	}
}

// Two members that differ wait for the third one to decide: then the wrong one ends, and writes are allowed again.
func TestThirdMemberDecides(t *testing.T) { synctest.Test(t, thirdMemberDecides) }

func thirdMemberDecides(t *testing.T) {
	c := newCluster(t, 3, withFaults(map[int]string{1: "wrong"}))
	c.leader()
	c.stop(2)
	eventually(t, "the write is done", func() bool {
		_, leader := c.leader()
		_, err := put(within(t, 10*time.Second), leader, "fault", "right")
		return err == nil
	})
	eventually(t, "writes stop", func() bool {
		_, leader := c.leader()
		_, err := put(within(t, 10*time.Second), leader, "after", "1")
		return errors.Is(err, metasrv.ErrStatesDiffer)
	})
	c.start(2)
	eventually(t, "the wrong member ends", func() bool { return c.nodes[1].Err() != nil })
	c.stop(1)
	eventually(t, "writes are allowed again", func() bool {
		_, leader := c.leader()
		_, err := put(within(t, 10*time.Second), leader, "after", "1")
		return err == nil
	})
}

// Members compare while they are written to, over many indexes, and find nothing where there is nothing.
func TestEqualMembersAgree(t *testing.T) { synctest.Test(t, equalMembersAgree) }

func equalMembersAgree(t *testing.T) {
	c := newCluster(t, 3, withFaults(nil))
	c.putMany(0, 3*hashInterval)
	for _, n := range c.nodes {
		eventually(t, "the states are compared", func() bool { return n.Status().ComparedIndex > hashInterval })
		if n.Err() != nil || n.Split() != "" {
			t.Errorf("found %v, %q", n.Err(), n.Split())
		}
	}
}

func TestHashRing(t *testing.T) {
	var r hashRing
	hash := func() uint64 { return 1 }
	steps := []uint64{1, 255, 257, 258, 511, 512, 513, 1500}
	for i, to := range steps {
		from := uint64(0)
		if i > 0 {
			from = steps[i-1]
		}
		r.note(from, to, hash)
	}
	var got []uint64
	for _, h := range r.hashes {
		got = append(got, h.index)
	}
	if len(got) != 3 || got[0] != 257 || got[1] != 512 || got[2] != 1500 {
		t.Errorf("noted at %v, want the first index from each multiple of %d on", got, hashInterval)
	}
	for i := range uint64(3 * keptHashes) {
		r.note(2000+i*hashInterval, 2000+(i+1)*hashInterval, hash)
	}
	oldest := r.hashes[r.next].index
	if want := uint64(2000 + 2*keptHashes*hashInterval + hashInterval); len(r.hashes) != keptHashes || oldest != want {
		t.Errorf("keeps %d from %d on, want %d from %d on", len(r.hashes), oldest, keptHashes, want)
	}
}

func TestJudge(t *testing.T) {
	report := func(member string, hashes ...stateHash) hashReport {
		return hashReport{member: member, voter: true, build: "1", hashes: hashes}
	}
	at := func(index, hash uint64) stateHash { return stateHash{index, hash} }
	other := report("b", at(256, 8))
	other.build = "2"
	nonVoter := report("b", at(256, 8))
	nonVoter.voter = false
	for _, c := range []struct {
		name         string
		self         hashReport
		others       []hashReport
		voters       int
		wrong, split bool
		compared     uint64
	}{
		{"alone", report("a", at(256, 7)), nil, 3, false, false, 0},
		{"all agree", report("a", at(256, 7), at(512, 9)), []hashReport{report("b", at(256, 7)), report("c", at(512, 9))}, 3, false, false, 512},
		{"no index in common", report("a", at(256, 7)), []hashReport{report("b", at(512, 8))}, 3, false, false, 0},
		{"against a majority", report("a", at(256, 7)), []hashReport{report("b", at(256, 8)), report("c", at(256, 8))}, 3, true, false, 0},
		{"with the majority", report("a", at(256, 7)), []hashReport{report("b", at(256, 8)), report("c", at(256, 7))}, 3, false, false, 256},
		{"one of two", report("a", at(256, 7)), []hashReport{report("b", at(256, 8))}, 3, false, true, 0},
		{"two of four against two", report("a", at(256, 7)), []hashReport{report("b", at(256, 7)), report("c", at(256, 8)), report("d", at(256, 8))}, 4, false, true, 0},
		{"two of five against one", report("a", at(256, 7)), []hashReport{report("b", at(256, 8)), report("c", at(256, 8))}, 5, false, true, 0},
		{"another build", report("a", at(256, 7)), []hashReport{other}, 3, false, false, 0},
		{"a non-voter differs", report("a", at(256, 7)), []hashReport{nonVoter, report("c", at(256, 7))}, 3, false, false, 256},
		{"differed, now equal", report("a", at(256, 7), at(512, 9)), []hashReport{report("b", at(256, 8), at(512, 9))}, 3, false, false, 512},
		{"wrong before, now equal", report("a", at(256, 7), at(512, 9)),
			[]hashReport{report("b", at(256, 8), at(512, 9)), report("c", at(256, 8), at(512, 9))}, 3, true, false, 512},
		{"decided later", report("a", at(256, 7), at(512, 9)),
			[]hashReport{report("b", at(256, 8), at(512, 5)), report("c", at(512, 9))}, 3, false, false, 512},
	} {
		got := judge(c.self, c.others, c.voters)
		if (got.wrong != "") != c.wrong || (got.split != nil) != c.split || got.compared != c.compared {
			t.Errorf("%s: %+v, want wrong %t, split %t, compared %d", c.name, got, c.wrong, c.split, c.compared)
		}
	}
	equalButFew := judge(report("a", at(256, 7), at(512, 9)),
		[]hashReport{report("b", at(256, 8), at(512, 9)), report("c", at(256, 8))}, 5)
	if equalButFew.split == nil {
		t.Error("two of five became equal, and that they differed from others was forgotten")
	}
	self := report("a", at(256, 7))
	self.voter = false
	if got := judge(self, []hashReport{report("b", at(256, 8)), report("c", at(256, 8))}, 3); got.wrong == "" {
		t.Error("a non-voter with another state than all voters was not found")
	}
}

// What was found stands until a majority agrees on a state at or behind the one in which they differed.
func TestSplitEndsByAgreement(t *testing.T) {
	report := func(member string, hashes ...stateHash) hashReport {
		return hashReport{member: member, voter: true, build: "1", hashes: hashes}
	}
	at := func(index, hash uint64) stateHash { return stateHash{index, hash} }
	self, was := report("a", at(256, 7), at(300, 8)), &split{cause: "seen", at: 300}
	learner := report("d", at(300, 8))
	learner.voter = false
	for _, c := range []struct {
		name   string
		others []hashReport
		voters int
		stands bool
	}{
		{"nobody answers", nil, 3, true},
		{"only a state from before is shared", []hashReport{report("b", at(256, 7), at(301, 1)), report("c", at(256, 7), at(301, 2))}, 3, true},
		{"a minority agrees", []hashReport{report("b", at(300, 8))}, 5, true},
		{"one without a vote agrees", []hashReport{learner}, 3, true},
		{"it is seen again", []hashReport{report("b", at(300, 9))}, 3, true},
		{"a majority agrees", []hashReport{report("b", at(300, 8))}, 3, false},
		{"the others are no members any more", nil, 1, false},
	} {
		if got := judge(self, c.others, c.voters).after(was, c.voters); (got != nil) != c.stands {
			t.Errorf("%s: %+v, want it to stand: %t", c.name, got, c.stands)
		}
	}
	later := judge(report("a", at(400, 1)), []hashReport{report("b", at(400, 2))}, 3).after(was, 3)
	if later == nil || later.at != 400 {
		t.Errorf("seen again at 400: %+v", later)
	}
}
