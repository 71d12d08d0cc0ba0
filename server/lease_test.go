package server

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// leased is a test datanode that keeps leases.
type leased struct {
	*testDatanode
	t *testing.T
}

func (m *testMemberServer) addLeased(t *testing.T, id uint64) leased {
	t.Helper()
	stream, err := metasrvpb.NewHeartbeatClient(m.conn).Heartbeat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := leased{&testDatanode{id: id, stream: stream}, t}
	d.send()
	d.incarnation = d.receive().GetIncarnation()
	return d
}

// send sends a full report.
func (d leased) send(replicas ...*metasrvpb.RegionStat) {
	d.t.Helper()
	d.sequence++
	if err := d.stream.Send(&metasrvpb.HeartbeatRequest{
		Peer: &metasrvpb.Peer{Id: d.id, Addr: "127.0.0.1:1"},
		Node: &metasrvpb.NodeInfo{
			Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, RegistrationNonce: d.id, KeepsLeases: true, StorageUuid: "disk",
		},
		Sequence: d.sequence, Incarnation: d.incarnation, FullReport: true, RegionStats: replicas,
		Digest: proto.Uint64(digest.Of(replicas)),
	}); err != nil {
		d.t.Fatal(err)
	}
}

func (d leased) receive() *metasrvpb.HeartbeatResponse {
	d.t.Helper()
	resp, err := d.stream.Recv()
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

// await receives answers until one is as wanted.
func (d leased) await(what string, wanted func(*metasrvpb.HeartbeatResponse) bool) *metasrvpb.HeartbeatResponse {
	d.t.Helper()
	found := make(chan *metasrvpb.HeartbeatResponse, 1)
	go func() {
		defer close(found)
		for {
			resp, err := d.stream.Recv()
			if err != nil {
				return
			}
			if wanted(resp) {
				found <- resp
				return
			}
		}
	}()
	select {
	case resp := <-found:
		if resp == nil {
			d.t.Fatalf("the stream ended before it came: %s", what)
		}
		return resp
	case <-time.After(waitLimit):
		d.t.Fatalf("did not come: %s", what)
		return nil
	}
}

// instructions decodes what an answer asks for.
func instructions(t *testing.T, resp *metasrvpb.HeartbeatResponse) []*metasrvpb.Instruction {
	t.Helper()
	var list []*metasrvpb.Instruction
	for _, payload := range resp.GetPayload() {
		i := &metasrvpb.Instruction{}
		if err := proto.Unmarshal(payload, i); err != nil {
			t.Fatal(err)
		}
		list = append(list, i)
	}
	return list
}

// A created region serves nothing before its table is PUBLIC; then the node hears of it at once.
func TestLeaseOfCreatedTable(t *testing.T) {
	m := startLeader(t)
	d := m.addLeased(t, 1)
	created, err := m.router().Create(timeout(t), createRequest("t"))
	if err != nil {
		t.Fatal(err)
	}
	route := created.GetTableRoutes()[0]
	var have []*metasrvpb.RegionStat
	for _, r := range route.GetRegionRoutes() {
		have = append(have, &metasrvpb.RegionStat{
			RegionId: r.GetRegion().GetId(), ReplicaId: r.GetLeaderReplicaId(), LeaderEpoch: r.GetLeaderEpoch(), ConfVersion: r.GetConfVersion(),
			Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER,
		})
	}
	d.send(have...)
	resp := d.await("an answer", func(r *metasrvpb.HeartbeatResponse) bool { return r.GetSequence() == d.sequence })
	if resp.GetLeaseMs() != 3000 || len(resp.GetUngranted()) != len(have) {
		t.Fatalf("of a table that is CREATING, granted %d ms without %d of %d regions", resp.GetLeaseMs(), len(resp.GetUngranted()), len(have))
	}
	m.commit(t, created, d.testDatanode)
	// The commit set the in-sync sets, which the region leaders don't know yet.
	resp = d.await("what became of the regions", func(r *metasrvpb.HeartbeatResponse) bool { return len(r.GetPayload()) == len(have) })
	for i, instruction := range instructions(t, resp) {
		config := instruction.GetPromoteRegion().GetConfig()
		if config.GetRegionId() != have[i].GetRegionId() || len(config.GetReplicas()) != 1 || !config.GetReplicas()[0].GetInSync() {
			t.Fatalf("told %v", instruction)
		}
		have[i].ConfVersion = config.GetConfVersion()
	}
	d.send(have...)
	d.await("a lease", func(r *metasrvpb.HeartbeatResponse) bool { return r.GetLeaseMs() == 3000 && len(r.GetUngranted()) == 0 })

	// A replica that the node doesn't report is to be opened, one that it follows instead of leads to be promoted.
	have[1].Role = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	d.send(have[1:]...)
	resp = d.await("instructions", func(r *metasrvpb.HeartbeatResponse) bool { return len(r.GetPayload()) > 0 })
	var opened, promoted uint64
	for _, i := range instructions(t, resp) {
		opened += i.GetOpenRegion().GetReplicaId()
		promoted += i.GetPromoteRegion().GetReplicaId()
	}
	if opened != have[0].GetReplicaId() || promoted != have[1].GetReplicaId() {
		t.Errorf("told %v", instructions(t, resp))
	}

	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("t")}); err != nil {
		t.Fatal(err)
	}
	d.await("the drops", func(r *metasrvpb.HeartbeatResponse) bool {
		dropped := 0
		for _, i := range instructions(t, r) {
			if i.GetDropRegion() != nil {
				dropped++
			}
		}
		return dropped == len(have)-1
	})
}

func TestLeaseMetrics(t *testing.T) {
	m := startLeader(t)
	d := m.addLeased(t, 1)
	unknown := &metasrvpb.RegionStat{RegionId: 1 << 40, ReplicaId: 1, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER}
	d.send(unknown)
	d.receive()
	if err := d.stream.Send(&metasrvpb.HeartbeatRequest{Sequence: d.sequence + 1, Digest: proto.Uint64(7)}); err != nil {
		t.Fatal(err)
	}
	if resp := d.receive(); !resp.GetFullReportWanted() {
		t.Fatalf("answered %v", resp)
	}
	_, body := m.get(t, "/metrics")
	for _, want := range []string{
		"metasrv_heartbeat_requests_total 3", "metasrv_heartbeat_region_reports_total 1", "metasrv_heartbeat_digest_mismatches_total 1",
		"metasrv_heartbeat_full_reports_asked_total 1", `metasrv_lease_grants_total{by="report"} 2`, `metasrv_lease_grants_total{by="digest"} 0`,
		`metasrv_lease_ungranted_regions_total{reason="state"} 1`, `metasrv_lease_ungranted_regions_total{reason="withheld"} 0`,
		"metasrv_heartbeat_answer_duration_seconds_count",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
