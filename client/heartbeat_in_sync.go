package client

import (
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// ChangeInSync asks metasrv for another in-sync set of a region that the node leads. It does not wait: the outcome is told
// to HeartbeatConfig.OnInSyncResult. It is asked for again until there is one, also from another member; a later call for
// the same replica takes the place of an earlier one.
//
// From asking for a replica to come in until the outcome is known, the region leader must wait for that replica's
// acknowledgement of each write already, and may stop to do so only when it is told that it was refused.
func (t *HeartbeatTask) ChangeInSync(change *metasrvpb.InSyncChange) {
	t.mu.Lock()
	if t.inSync == nil {
		t.inSync = make(map[replicaKey]*inSyncRequest)
	}
	t.inSync[replicaKey{change.GetRegionId(), change.GetReplicaId()}] = &inSyncRequest{change: change}
	t.mu.Unlock()
	t.Beat()
}

// inSyncRequest is a change that has no outcome yet.
type inSyncRequest struct {
	change *metasrvpb.InSyncChange
	// stream and sequence are those of the request that asks for it, nil before.
	stream   *heartbeatStream
	sequence uint64
}

// askInSync puts the changes into a request that are not under way on its stream. t.mu is held.
func (t *HeartbeatTask) askInSync(s *heartbeatStream, request *metasrvpb.HeartbeatRequest) {
	for _, r := range t.inSync {
		if r.stream != s {
			r.stream, r.sequence = s, request.GetSequence()
			request.InSyncChanges = append(request.InSyncChanges, r.change)
		}
	}
}

// takeInSync takes the outcomes in a response, and has those asked for again that it should have had.
func (t *HeartbeatTask) takeInSync(s *heartbeatStream, response *metasrvpb.HeartbeatResponse) {
	var results []*metasrvpb.InSyncResult
	t.mu.Lock()
	for _, result := range response.GetInSyncResults() {
		key := replicaKey{result.GetRegionId(), result.GetReplicaId()}
		if r := t.inSync[key]; r != nil && r.stream == s && r.sequence == response.GetSequence() {
			delete(t.inSync, key)
			results = append(results, result)
		}
	}
	for _, r := range t.inSync {
		if r.stream == s && r.sequence == response.GetSequence() {
			r.stream = nil
		}
	}
	t.mu.Unlock()
	for _, result := range results {
		if t.cfg.OnInSyncResult != nil {
			t.cfg.OnInSyncResult(result)
		}
	}
}
