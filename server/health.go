package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/metasrv/metasrv/raftfsm"
)

// live says whether the process must be restarted.
func (s *Server) live() []check {
	return []check{{"process", s.failure()}}
}

// failure returns why the member can't go on, nil while it can.
func (s *Server) failure() error {
	if !s.ready.Load() {
		return nil
	}
	select {
	case <-s.services.node.Done():
		return s.services.node.Err()
	default:
		return nil
	}
}

// readiness says whether the member is of use to clients.
func (s *Server) readiness() []check {
	if !s.ready.Load() {
		return []check{{"node", errors.New("the member is starting or stopping")}}
	}
	status := s.services.node.Status()
	age, known := s.services.node.Age()
	_, leads := s.services.node.Leadership()
	checks := []check{{"node", s.failure()}, {name: "state"}, {name: "leader"}, {"disk", checkDisk(status, leads)}}
	if known && age > maxBehind {
		checks[1].err = fmt.Errorf("its state was last known to be complete %s ago: it does not keep up with the metasrv leader, or does not reach it",
			age.Round(time.Second))
	}
	if status.ClusterID == 0 {
		checks[1].err = errors.New("no entry of the cluster's log has been applied since this member started: that waits for a metasrv leader, " +
			"which a majority of the members elects")
	}
	if status.Waiting != "" {
		checks[1].err = errors.New("the member waits for " + status.Waiting)
	}
	if status.ClusterID != 0 && !status.CaughtUp {
		checks[1].err = fmt.Errorf("has applied %d entries of the log, and is still behind what the metasrv leader had at the start", status.AppliedIndex)
	}
	if _, ok := s.services.node.Leader(); !ok {
		checks[2].err = fmt.Errorf("no metasrv leader is known (raft is %s in term %d); a majority of the members must reach each other",
			status.State, status.Term)
	}
	return checks
}

// maxBehind is how old a state may be that clients are sent to.
const maxBehind = 10 * time.Second

// checkDisk returns an error for a member that can't follow any more because its disk is full. A metasrv leader goes on to
// answer reads, which nobody else does better: it has handed over if another one could lead.
func checkDisk(status raftfsm.Status, leads bool) error {
	// The two are read one after the other: a disk that has just got room has no error.
	if !status.DiskOut || status.DiskFull == nil || leads {
		return nil
	}
	return fmt.Errorf("this member can't follow the metasrv leader: %w", status.DiskFull)
}

// usable reports whether clients that ask this member are answered, by it or by the metasrv leader that it names.
func (s *Server) usable() bool {
	if !passed(s.readiness()) {
		return false
	}
	record, ok := s.services.node.Leader()
	if ok && record.GetId() == s.cfg.NodeID {
		return s.services.requireLeader() == nil
	}
	return ok && record.GetGrpcAddr() != ""
}

// watchHealth keeps the gRPC health service up to date until ctx ends.
func (s *Server) watchHealth(ctx context.Context) error {
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	for {
		s.health.SetServingStatus("", serves(passed(s.readiness())))
		s.health.SetServingStatus(leaderService, serves(s.services.requireLeader() == nil))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func passed(checks []check) bool {
	for _, c := range checks {
		if c.err != nil {
			return false
		}
	}
	return true
}

func serves(ok bool) healthpb.HealthCheckResponse_ServingStatus {
	if ok {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}
