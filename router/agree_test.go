package router_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

const (
	leaderRole   = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	followerRole = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	learnerRole  = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
)

// told returns what a node is told, in short: which instruction, and about which replica.
func told(a router.Agreement) string {
	var list []string
	for _, i := range a.Instructions {
		switch {
		case i.GetDropRegion() != nil:
			list = append(list, fmt.Sprint("drop ", i.GetDropRegion().GetReplicaId()))
		case i.GetPromoteRegion() != nil:
			list = append(list, fmt.Sprint("promote ", i.GetPromoteRegion().GetReplicaId()))
		case i.GetDemoteRegion() != nil:
			list = append(list, fmt.Sprint("demote ", i.GetDemoteRegion().GetReplicaId()))
		case i.GetCatchUpRegion() != nil:
			list = append(list, fmt.Sprint("catch up ", i.GetCatchUpRegion().GetReplicaId()))
		case i.GetOpenRegion() != nil:
			list = append(list, fmt.Sprint("open ", i.GetOpenRegion().GetReplicaId()))
		case i.GetAddLearner() != nil:
			list = append(list, fmt.Sprint("add ", i.GetAddLearner().GetReplicaId()))
		}
	}
	return strings.Join(list, ", ")
}

func TestAgree(t *testing.T) {
	// How the state comes to be; replica 1 on node 1 leads region 1024/0, 2 and 3 follow on nodes 2 and 3, unless it says so.
	asCreated := func(*cluster, *storagepb.RegionRecord) {}
	demoting := func(c *cluster, r *storagepb.RegionRecord) { c.change(to(r, &storagepb.BeginDemotion{})) }
	secondLeads := func(c *cluster, r *storagepb.RegionRecord) {
		c.change(to(r, &storagepb.ElectReplica{ReplicaId: 2, FailedReplicaIds: []uint64{1}}))
	}
	learnerOn4 := func(c *cluster, r *storagepb.RegionRecord) {
		c.change(to(r, &storagepb.AddReplica{NodeId: 4, Incarnation: c.incarnation(4)}))
	}
	thirdRemoved := func(c *cluster, r *storagepb.RegionRecord) { c.change(to(r, &storagepb.RemoveReplica{ReplicaId: 3})) }
	dropped := func(c *cluster, _ *storagepb.RegionRecord) { c.must(dropTable, dropOf("t")) }

	// A report relative to the state: its epoch and configuration less these.
	type line struct {
		replica     metasrv.ReplicaID
		role        metasrvpb.ReplicaRole
		epoch, conf int
		demoted     bool
	}
	for _, tt := range []struct {
		name     string
		state    func(*cluster, *storagepb.RegionRecord)
		node     metasrv.NodeID
		report   []line
		standing router.Standing
		told     string
	}{
		{"leader", asCreated, 1, []line{{1, leaderRole, 0, 0, false}}, router.Leading, ""},
		{"leader of an older configuration", asCreated, 1, []line{{1, leaderRole, 0, 1, false}}, router.Outdated, "promote 1"},
		{"leader of a configuration that is lost", asCreated, 1, []line{{1, leaderRole, 0, -1, false}}, router.Refused, "promote 1"},
		{"leader of an older epoch", asCreated, 1, []line{{1, leaderRole, 1, 0, false}}, router.Refused, "promote 1"},
		{"leader of an epoch that is lost", asCreated, 1, []line{{1, leaderRole, -1, 0, false}}, router.Refused, "promote 1"},
		{"leader that follows", asCreated, 1, []line{{1, followerRole, 0, 0, false}}, router.Idle, "promote 1"},
		{"leader that was demoted", asCreated, 1, []line{{1, leaderRole, 0, 0, true}}, router.Idle, "promote 1"},
		{"leader that is missing", asCreated, 1, nil, router.Idle, "open 1"},
		{"follower", asCreated, 2, []line{{2, followerRole, 0, 0, false}}, router.Idle, ""},
		{"follower of an older configuration", asCreated, 2, []line{{2, followerRole, 0, 1, false}}, router.Idle, "catch up 2"},
		{"follower of an older epoch", asCreated, 2, []line{{2, followerRole, 1, 0, false}}, router.Idle, "catch up 2"},
		{"follower that leads", asCreated, 2, []line{{2, leaderRole, 0, 0, false}}, router.Refused, "demote 2"},
		{"follower that was demoted", asCreated, 2, []line{{2, leaderRole, 0, 0, true}}, router.Idle, "catch up 2"},
		{"follower that learns", asCreated, 2, []line{{2, learnerRole, 0, 0, false}}, router.Idle, "catch up 2"},
		{"replica of another node", asCreated, 2, []line{{1, leaderRole, 0, 0, false}}, router.Refused, "open 2"},
		{"replica that never was", asCreated, 2, []line{{99, leaderRole, 0, 0, false}}, router.Refused, "open 2"},
		{"replica of the early protocol", asCreated, 2, []line{{0, leaderRole, 0, 0, false}}, router.Refused, "open 2"},
		{"demoting", demoting, 1, []line{{1, leaderRole, 0, 0, false}}, router.Refused, "demote 1"},
		{"demoting, and demoted", demoting, 1, []line{{1, leaderRole, 0, 0, true}}, router.Idle, ""},
		{"leader before", secondLeads, 1, []line{{1, leaderRole, 1, 1, false}}, router.Refused, "demote 1"},
		{"leader before, that knows", secondLeads, 1, []line{{1, leaderRole, 1, 1, true}}, router.Idle, "catch up 1"},
		{"new leader", secondLeads, 2, []line{{2, followerRole, 1, 1, false}}, router.Idle, "promote 2"},
		{"new leader, that knows", secondLeads, 2, []line{{2, leaderRole, 0, 0, false}}, router.Leading, ""},
		{"learner that is missing", learnerOn4, 4, nil, router.Idle, "add 4"},
		{"learner", learnerOn4, 4, []line{{4, learnerRole, 0, 0, false}}, router.Idle, ""},
		{"learner that leads", learnerOn4, 4, []line{{4, leaderRole, 0, 0, false}}, router.Refused, "demote 4"},
		{"replica that was removed", thirdRemoved, 3, []line{{3, leaderRole, 0, 0, false}}, router.Refused, "drop 3"},
		{"table that was dropped", dropped, 1, []line{{1, leaderRole, 0, 0, false}}, router.Refused, "drop 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			region := threeReplicas(c, "t")
			tt.state(c, region)
			region = c.region(metasrv.RegionID(region.RegionId))
			var report []router.ReportedReplica
			for _, l := range tt.report {
				report = append(report, router.ReportedReplica{
					Region: metasrv.RegionID(region.RegionId), Replica: l.replica, Role: l.role, Demoted: l.demoted,
					LeaderEpoch: uint64(int(region.LeaderEpoch) - l.epoch), ConfVersion: uint64(int(region.ConfVersion) - l.conf),
				})
			}
			address := func(id metasrv.NodeID) string { return fmt.Sprint("node ", id) }
			agree := func(by router.Reporter) router.Agreement {
				a, err := router.Agree(c.View(), by, metasrv.RegionID(region.RegionId).Table(), report, address)
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			a := agree(router.Reporter{Node: tt.node, KeepsLeases: true})
			if len(a.Standings) != len(report) || len(report) == 1 && a.Standings[0] != tt.standing {
				t.Errorf("standing %v, want %v", a.Standings, tt.standing)
			}
			if got := told(a); got != tt.told {
				t.Errorf("told to %q, want %q", got, tt.told)
			}
			checkConfigs(t, a, region)

			// A node without leases is told to drop, and nothing else; one with other storage has lost what it had.
			a = agree(router.Reporter{Node: tt.node})
			want := ""
			if strings.HasPrefix(tt.told, "drop") {
				want = tt.told
			}
			if got := told(a); got != want || slices.ContainsFunc(a.Standings, func(s router.Standing) bool { return s != router.Idle }) {
				t.Errorf("without leases: told to %q, standing %v", got, a.Standings)
			}
			a = agree(router.Reporter{Node: tt.node, KeepsLeases: true, StorageGeneration: 1})
			if got := told(a); got != want || slices.Contains(a.Standings, router.Leading) || slices.Contains(a.Standings, router.Outdated) {
				t.Errorf("with other storage: told to %q, standing %v", got, a.Standings)
			}
		})
	}
}

// checkConfigs: whoever is told of a region is told all that the state says of it.
func checkConfigs(t *testing.T, a router.Agreement, region *storagepb.RegionRecord) {
	t.Helper()
	for _, i := range a.Instructions {
		if i.GetDropRegion() != nil {
			continue
		}
		config := i.GetPromoteRegion().GetConfig()
		for _, c := range []*metasrvpb.RegionConfig{
			i.GetDemoteRegion().GetConfig(), i.GetCatchUpRegion().GetConfig(), i.GetOpenRegion().GetConfig(), i.GetAddLearner().GetConfig(),
		} {
			if c != nil {
				config = c
			}
		}
		if config.GetRegionId() != region.RegionId || config.GetLeaderEpoch() != region.LeaderEpoch ||
			config.GetConfVersion() != region.ConfVersion || config.GetLeaderReplicaId() != region.LeaderReplicaId || len(config.GetReplicas()) != len(region.Replicas) {
			t.Errorf("told %v of %v", config, region)
		}
		for at, r := range config.GetReplicas() {
			if want := region.Replicas[at]; r.GetReplicaId() != want.ReplicaId || r.GetInSync() != want.InSync || r.GetLearner() != want.Learner ||
				r.GetPeer().GetAddr() != fmt.Sprint("node ", want.NodeId) {
				t.Errorf("told %v of %v", r, want)
			}
		}
		if add := i.GetAddLearner(); add != nil && (add.GetTable().GetId() != 1024 || add.GetRegion().GetId() != region.RegionId) {
			t.Errorf("told to add a learner of table %d, region %d", add.GetTable().GetId(), add.GetRegion().GetId())
		}
	}
}

// Nothing of a table leads before it is PUBLIC, nor after its end; what the node no longer has of a dropped one is confirmed.
func TestAgreeOnTablesThatAreNotPublic(t *testing.T) {
	c := newCluster(t)
	created := c.create("t", 1, 1, 2)
	report := []router.ReportedReplica{{Region: metasrv.RegionID(created.Route.Regions[0].RegionId), Replica: 1, Role: leaderRole, LeaderEpoch: 1}}
	agree := func(report []router.ReportedReplica) router.Agreement {
		t.Helper()
		a, err := router.Agree(c.View(), router.Reporter{Node: 1, KeepsLeases: true}, 1024, report, func(metasrv.NodeID) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := agree(report); told(a) != "" || a.Standings[0] != router.Refused {
		t.Errorf("CREATING: told to %q, standing %v", told(a), a.Standings)
	}
	if a := agree(nil); told(a) != "" || len(a.Gone) > 0 {
		t.Errorf("CREATING, not there yet: told to %q, gone %v", told(a), a.Gone)
	}
	c.must(abortTable, abortOf(created))
	if a := agree(report); told(a) != "drop 1" || a.Standings[0] != router.Refused || len(a.Gone) > 0 {
		t.Errorf("ABORTING: told to %q, standing %v, gone %v", told(a), a.Standings, a.Gone)
	}
	if a := agree(nil); told(a) != "" || len(a.Gone) != 1 || a.Gone[0].ReplicaId != 1 {
		t.Errorf("ABORTING, dropped: told to %q, gone %v", told(a), a.Gone)
	}
	c.must(confirmDropped, c.confirmOf(created, 1))
	c.must(confirmDropped, c.confirmOf(created, 2))
	if a := agree(report); told(a) != "drop 1" || a.Standings[0] != router.Refused {
		t.Errorf("gone: told to %q, standing %v", told(a), a.Standings)
	}
}

func TestConcerned(t *testing.T) {
	c := newCluster(t)
	before := c.View().Revision()
	c.public("t", 2, 1, 2)
	placed := map[metasrv.TableID][]metasrv.NodeID{}
	if err := router.Placements(c.View(), func(p router.Placement) {
		placed[p.Table] = append(placed[p.Table], p.Node)
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(placed[1024]); !slices.Equal(placed[1024], []metasrv.NodeID{1, 1, 2, 2}) || len(placed) != 1 {
		t.Errorf("placed are %v", placed)
	}
	region := c.region(metasrv.NewRegionID(1024, 0))
	c.change(to(region, &storagepb.AddReplica{NodeId: 4, Incarnation: c.incarnation(4)}))
	c.must(dropTable, dropOf("t"))
	revisions, err := c.Read(t.Context(), before+1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range revisions {
		var keys []string
		for _, change := range r.Changes {
			keys = append(keys, strings.Split(change.Key, "/")[0])
		}
		slices.Sort(keys)
		if err := router.Concerned(c.View(), r.Changes, func(table metasrv.TableID, nodes []metasrv.NodeID) {
			got = append(got, fmt.Sprint(keys, table, slices.Sorted(slices.Values(nodes))))
		}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"[route seq seq table table_name table_pending] 1024 [1 2]", "[route table table_pending] 1024 [1 2]",
		"[route seq] 1024 [1 2 4]", "[table table_name table_pending] 1024 [1 2 4]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("concerned are %v, want %v", got, want)
	}
}
