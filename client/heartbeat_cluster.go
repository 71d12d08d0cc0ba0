package client

import (
	"context"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// ClusterID returns the cluster that the node belongs to: that of the configuration, else the one that answered
// first. 0 before that. HeartbeatConfig.OnRegistered may ask for it.
func (t *HeartbeatTask) ClusterID() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cluster
}

// checkCluster compares the cluster that a member says it is of with that of the node, which it becomes if the
// node has none. It returns metasrv.ErrClusterMismatch where they differ. A member that says nothing passes.
func (t *HeartbeatTask) checkCluster(member string, answered uint64) (learned bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case answered == 0 || answered == t.cluster:
		return false, nil
	case t.cluster != 0:
		return false, errOtherCluster(member, answered, t.cluster)
	}
	t.cluster = answered
	return true, nil
}

// explainMismatch asks a member that refused the node's cluster which one it is of, since its refusal says that
// in words only. Where it doesn't tell, the refusal must do.
func (t *HeartbeatTask) explainMismatch(ctx context.Context, member string, refusal error) error {
	ctx, cancel := context.WithTimeout(ctx, t.client.cfg.AttemptTimeout)
	defer cancel()
	cc, release, err := t.client.conns.use(member)
	if err != nil {
		return refusal
	}
	defer release()
	answer, err := metasrvpb.NewHeartbeatClient(cc).AskLeader(ctx, &metasrvpb.AskLeaderRequest{
		Header: &metasrvpb.RequestHeader{MemberId: t.cfg.Peer.GetId()},
	})
	if id := answer.GetHeader().GetClusterId(); err == nil && id != 0 && id != t.ClusterID() {
		return errOtherCluster(member, id, t.ClusterID())
	}
	return refusal
}

func errOtherCluster(member string, answered, own uint64) error {
	return metasrv.ErrClusterMismatch.With("metasrv at %s is cluster %d, not %d", member, answered, own)
}
