package client

import (
	"github.com/metasrv/metasrv/router/partition"
)

// Preference says which replicas of a region a query asks first.
type Preference int

// The preferences.
const (
	// FollowersFirst spreads reads over the followers and falls back to the region leader.
	FollowersFirst Preference = iota
	// LeaderFirst reads from the region leader and falls back to the followers.
	LeaderFirst
)

// ReadTask is a region that a query needs.
type ReadTask struct {
	Region *Region
	// Endpoints are the replicas to ask, at least one: the first, and each next one if the one before fails.
	Endpoints []Endpoint
}

// PlanSelect returns the regions that may hold rows for which all conditions hold, in the order of their
// partitions: none where the conditions contradict each other, all where the table's partitions are unknown.
// Which follower comes first changes with each call for the same route and with each region, so that load
// spreads. A needed region without any replica is ErrRegionUnavailable.
func PlanSelect(r *TableRoute, conditions []partition.Condition, preference Preference) ([]ReadTask, error) {
	turn := r.nextTurn()
	var tasks []ReadTask
	for _, i := range r.prune(conditions) {
		region := &r.Regions[i]
		endpoints := region.endpoints(preference, turn+uint64(i)) //nolint:gosec // i is not negative
		if len(endpoints) == 0 {
			return nil, ErrRegionUnavailable.With("region %s of table %s has no replica", region.ID, r.Name)
		}
		tasks = append(tasks, ReadTask{Region: region, Endpoints: endpoints})
	}
	return tasks, nil
}

// prune returns the indexes of the regions that may hold matching rows.
func (r *TableRoute) prune(conditions []partition.Condition) []int {
	if r.partitioner != nil {
		return r.partitioner.Prune(conditions)
	}
	every := make([]int, len(r.Regions))
	for i := range every {
		every[i] = i
	}
	return every
}

// endpoints returns the region's replicas in the order in which they are asked.
func (r *Region) endpoints(preference Preference, turn uint64) []Endpoint {
	endpoints := make([]Endpoint, 0, len(r.Followers)+1)
	if preference == LeaderFirst && r.HasLeader() {
		endpoints = append(endpoints, r.Leader)
	}
	n := uint64(len(r.Followers))
	for k := range n {
		endpoints = append(endpoints, r.Followers[(turn+k)%n])
	}
	if preference != LeaderFirst && r.HasLeader() {
		endpoints = append(endpoints, r.Leader)
	}
	return endpoints
}
