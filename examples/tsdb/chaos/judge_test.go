package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// check fails the test unless err says what is wanted, "" for nothing.
func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

func TestStream(t *testing.T) {
	s := &stream{writer: 7}
	s.acknowledge(s.send(2), 2)
	s.send(1)
	s.acknowledge(s.send(1), 1)
	before := s.expect(0)
	s.acknowledge(s.send(1), 1) // while the read runs
	for _, c := range []struct {
		name  string
		found []int
		want  string
	}{
		{"all that must be", []int{4, 1, 2}, ""},
		{"what has no outcome, and what came later", []int{1, 2, 3, 4, 5}, ""},
		{"lost", []int{1, 4}, "1 rows of writer 7 were acknowledged before the read began, and are not there: [2]"},
		{"twice", []int{1, 2, 2, 4}, "row 2 of writer 7 is there twice"},
		{"without an outcome, twice", []int{1, 2, 3, 3, 4}, "row 3 of writer 7 is there twice"},
		{"never sent", []int{1, 2, 4, 6}, "row 6 of writer 7 was never sent"},
	} {
		check(t, c.name, before.judge(c.found), c.want)
	}
	check(t, "only the last rows are asked for", s.expect(2).judge([]int{4, 5}), "")
	check(t, "more than was asked for", s.expect(2).judge([]int{3, 4, 5}), "never sent")
}

func TestLatest(t *testing.T) {
	l := newLatest(7)
	write := func(ok bool) int {
		key, value := l.send()
		l.outcome(key, value, ok)
		return key
	}
	key := write(true)
	for range keysOfLatest - 1 {
		write(true)
	}
	write(true) // value 2 of key
	least := l.expect()
	found := map[int]int{0: 1, 1: 1, 2: 1, 3: 1, 4: 1}
	found[key] = 2
	check(t, "all there", l.judge(least, found), "")
	found[key] = 1
	check(t, "an older value", l.judge(least, found), "has the value 1, value 2 was acknowledged")
	delete(found, key)
	check(t, "no value", l.judge(least, found), "is not there")
	found[key] = 3
	check(t, "a value of nobody", l.judge(least, found), "never sent")

	lost := write(false)
	for range keysOfLatest {
		if write(true) == lost {
			t.Error("a key whose last write has no known outcome is written again")
		}
	}
}

func TestJudgeJournals(t *testing.T) {
	start := time.Unix(1000, 0)
	after := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	history := func() *epochs {
		e := newEpochs()
		for i, r := range []*metasrvpb.RegionRoute{
			{Region: &metasrvpb.Region{Id: 1}, LeaderEpoch: 1, LeaderReplicaId: 11},
			{Region: &metasrvpb.Region{Id: 1}, LeaderEpoch: 2, LeaderReplicaId: 12},
		} {
			if err := e.note(r, after(10*i)); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
	line := func(kind string, replica, epoch uint64, seconds int) journalLine {
		return journalLine{kind: kind, region: 1, replica: replica, epoch: epoch, at: after(seconds), place: uint64(seconds), write: fmt.Sprint(seconds)}
	}
	at := func(l journalLine, place uint64, write string) journalLine {
		l.place, l.write = place, write
		return l
	}
	for _, c := range []struct {
		name     string
		journals [][]journalLine
		want     string
	}{
		{"one leader after the other", [][]journalLine{{line("ack", 11, 1, 1)}, {line("store", 12, 1, 1), line("ack", 12, 2, 11)}}, ""},
		{"after the next election", [][]journalLine{{line("ack", 11, 1, 11)}}, "metasrv had elected replica 12 in epoch 2"},
		{"after the next leader", [][]journalLine{{line("ack", 11, 1, 9)}, {line("ack", 12, 2, 8)}}, "acknowledged in epoch 1 at"},
		{"of another replica", [][]journalLine{{line("ack", 13, 1, 1)}}, "in which replica 11 leads"},
		{"in an epoch of nobody", [][]journalLine{{line("ack", 11, 0, 1)}}, "in which metasrv elected nobody"},
		{"two writes in one place", [][]journalLine{{at(line("ack", 11, 1, 1), 7, "aa")}, {at(line("ack", 12, 2, 11), 7, "bb")}},
			"acknowledged writes aa and bb for the same place 7"},
		{"a write in two places", [][]journalLine{{at(line("ack", 11, 1, 1), 7, "aa")}, {at(line("ack", 12, 2, 11), 8, "aa")}},
			"acknowledged write aa at place 7 and at place 8"},
		{"a write again", [][]journalLine{{at(line("ack", 11, 1, 1), 7, "aa")}, {at(line("ack", 12, 2, 11), 7, "aa")}}, ""},
		{"stored in an epoch that is over", [][]journalLine{{line("store", 12, 2, 1), line("store", 12, 1, 2)}},
			"stored a write of epoch 1 after one of epoch 2"},
	} {
		check(t, c.name, judgeJournals(c.journals, history()), c.want)
	}
	again := &metasrvpb.RegionRoute{Region: &metasrvpb.Region{Id: 1}, LeaderEpoch: 2, LeaderReplicaId: 11}
	check(t, "two leaders in one epoch", history().note(again, start), "two leaders in epoch 2")
	again.LeaderEpoch = 1
	check(t, "an epoch that goes back", history().note(again, start), "went back")
}
