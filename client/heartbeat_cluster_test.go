package client

import (
	"strings"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// TestHeartbeatClusterIsThatOfTheFirstAnswer: OnRegistered finds it known, beats name it from then on, and the
// answer of another one ends Run unheard.
func TestHeartbeatClusterIsThatOfTheFirstAnswer(t *testing.T) {
	m, f := leaderMember(t)
	f.cluster = 11
	c := dial(t, nil, m.addr)
	known := make(chan uint64, 10)
	cfg := HeartbeatConfig{Peer: &metasrvpb.Peer{Id: 7, Addr: "h:1"}, Interval: 20 * time.Millisecond}
	var task *HeartbeatTask
	cfg.OnRegistered = func(uint64) { known <- task.ClusterID() }
	task = NewHeartbeatTask(c, cfg)
	ended := make(chan error, 1)
	go func() { ended <- task.Run(t.Context()) }()
	beats := f.await(t, 4)
	if id := <-known; id != 11 {
		t.Errorf("OnRegistered finds cluster %d", id)
	}
	if first, later := beats[0].GetHeader().GetClusterId(), beats[3].GetHeader().GetClusterId(); first != 0 || later != 11 {
		t.Errorf("the first beat is for cluster %d, a later one for %d", first, later)
	}
	f.set(func() { f.cluster, f.incarnation = 12, 6 })
	err := <-ended
	wantIs(t, err, metasrv.ErrClusterMismatch)
	if want := "metasrv at " + m.addr + " is cluster 12, not 11"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if task.Incarnation() != 5 || task.ClusterID() != 11 || len(known) != 0 {
		t.Errorf("registered in the other cluster: incarnation %d, cluster %d", task.Incarnation(), task.ClusterID())
	}
}

// TestHeartbeatClusterIsRefused: a configured cluster is named from the first beat on, and the refusal of a member
// is explained by what that member is, where it tells.
func TestHeartbeatClusterIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answered uint64
		want     string
	}{
		"told":     {12, "is cluster 12, not 11"},
		"not told": {0, "the request is for cluster 11"},
	} {
		t.Run(name, func(t *testing.T) {
			m, f := leaderMember(t)
			f.end = refusal(metasrv.ErrClusterMismatch.With("the request is for cluster 11"))
			m.answer(&metasrvpb.AskLeaderResponse{Header: &metasrvpb.ResponseHeader{ClusterId: c.answered}}, nil)
			task := NewHeartbeatTask(dial(t, nil, m.addr), HeartbeatConfig{Peer: &metasrvpb.Peer{Id: 7, Addr: "h:1"}, ClusterID: 11})
			err := task.Run(t.Context())
			wantIs(t, err, metasrv.ErrClusterMismatch)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestHeartbeatClusterIsConfigured: it is that of the node's data, which no answer changes.
func TestHeartbeatClusterIsConfigured(t *testing.T) {
	m, f := leaderMember(t)
	f.cluster = 11
	task, _ := beatFrom(t, dial(t, nil, m.addr), func(cfg *HeartbeatConfig) { cfg.ClusterID = 11 })
	for i, b := range f.await(t, 2) {
		if id := b.GetHeader().GetClusterId(); id != 11 {
			t.Errorf("beat %d is for cluster %d", i, id)
		}
	}
	if task.ClusterID() != 11 {
		t.Errorf("cluster %d", task.ClusterID())
	}
}
