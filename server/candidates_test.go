package server

import (
	"errors"
	"testing"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/scheduler"
)

// survey returns the candidates that a placement is given.
func (m *testMemberServer) survey(t *testing.T) *candidates {
	t.Helper()
	var found *candidates
	_, done, err := m.services.placed.place(t.Context(), m.node.View(), m.services.term.Load().tracker, func(c *candidates) ([][]scheduler.Assignment, error) {
		found = c
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done(0)
	return found
}

// Many nodes are not gathered for each creation, but what they hold is counted for each, and a node that registers is there at once.
func TestCandidatesAreKept(t *testing.T) {
	m := startLeader(t, func(c *Config) { c.SuspectAfter, c.DownAfter = time.Hour, 2*time.Hour }) // the nodes beat once
	for id := range uint64(fewCandidates) {
		m.addDatanode(t, id+1)
	}
	few := m.survey(t)
	if m.survey(t) == few {
		t.Errorf("%d nodes were kept", len(few.loads))
	}
	m.addDatanode(t, fewCandidates+1)
	many := m.survey(t)
	many.until = time.Now().Add(time.Hour)
	if _, err := m.router().Create(timeout(t), &metasrvpb.CreateRequest{TableName: tableName("one")}); err != nil {
		t.Fatal(err)
	}
	again := m.survey(t)
	if again != many {
		t.Error("the same nodes were gathered again")
	}
	for node, n := range recount(t, m.node.View()) {
		if load := again.loads[node-1]; load.Replicas != n.replicas || load.Leaders != n.leaders {
			t.Errorf("node %d has %+v, want %+v", node, load, n)
		}
	}
	m.addDatanode(t, 1000)
	if c := m.survey(t); len(c.loads) != fewCandidates+2 {
		t.Errorf("%d nodes after one more registered, want %d", len(c.loads), fewCandidates+2)
	}
	c := m.survey(t)
	if c.serve(c.tracker, c.nodes, c.until) {
		t.Error("they serve although their time is over")
	}
	if c.serve(nil, c.nodes, c.until.Add(-1)) {
		t.Error("they serve another term")
	}
}

// That no nodes suffice is never said of those of a moment ago.
func TestRefusalIsOfThePresentNodes(t *testing.T) {
	m := startLeader(t, func(c *Config) { c.SuspectAfter, c.DownAfter = time.Hour, 2*time.Hour })
	for id := range uint64(fewCandidates) + 1 {
		m.addDatanode(t, id+1)
	}
	kept := m.survey(t)
	kept.until = time.Now().Add(time.Hour)
	missing := errors.New("a node is missing")
	var asked []*candidates
	_, _, err := m.services.placed.place(t.Context(), m.node.View(), kept.tracker, func(c *candidates) ([][]scheduler.Assignment, error) {
		asked = append(asked, c)
		return nil, missing
	})
	if !errors.Is(err, missing) || len(asked) != 2 || asked[0] != kept || asked[1] == kept {
		t.Errorf("%v after %d attempts, want one with those that were kept and one with the present nodes", err, len(asked))
	}
}
