package router

import (
	"fmt"
	"strings"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Lost reports whether a replica was on other storage than its node has now, given the node's registration and whether it
// has one. What such a replica had is gone, whatever the node reports.
func Lost(replica *storagepb.ReplicaRecord, present metasrv.Registration, registered bool) bool {
	return isLost(replica, present, registered)
}

// Problem returns what is wrong with a region of a table as far as the state says it, for people; "" where nothing is. lost
// says whether a replica is lost.
func Problem(r Record, region *storagepb.RegionRecord, lost func(*storagepb.ReplicaRecord) bool) string {
	if r.Table.GetState() != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return ""
	}
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	there, led := 0, false
	for _, replica := range region.Replicas {
		leads := replica.ReplicaId == region.LeaderReplicaId
		led = led || leads
		switch {
		case lost(replica) && leads:
			add("its leader, replica %d, is lost: node %d came back with other storage; nobody can write", replica.ReplicaId, replica.NodeId)
		case lost(replica):
			add("replica %d is lost: node %d came back with other storage", replica.ReplicaId, replica.NodeId)
		case replica.Learner:
		case !replica.InSync:
			add("replica %d on node %d is not in sync", replica.ReplicaId, replica.NodeId)
			there++
		default:
			there++
		}
	}
	if !led {
		add("nobody leads it")
	}
	if region.Demoting {
		add("its leadership is being handed over, nobody can write")
	}
	if wanted := int(r.Route.GetReplicas()); there < wanted {
		add("it has %d of %d replicas", there, wanted)
	}
	return strings.Join(problems, "; ")
}
