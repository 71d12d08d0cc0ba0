package server

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// clusterService is the Cluster service: members and sessions here, nodes and regions in cluster_nodes.go.
type clusterService struct {
	metasrvpb.UnimplementedClusterServer
	*services
}

func (s clusterService) Status(context.Context, *metasrvpb.StatusRequest) (*metasrvpb.StatusResponse, error) {
	status := s.node.Status()
	resp := &metasrvpb.StatusResponse{
		Header:         &metasrvpb.ResponseHeader{Revision: status.Revision},
		Member:         &metasrvpb.Member{Id: s.memberID},
		Leader:         s.leader(),
		Term:           status.Term,
		AppliedIndex:   status.AppliedIndex,
		FlushedIndex:   status.FlushedIndex,
		ImageBytes:     status.ImageBytes,
		UptimeMs:       uint64(time.Since(s.started).Milliseconds()), //nolint:gosec // never negative
		LeaderReady:    s.requireLeader() == nil,
		ClusterVersion: status.ClusterVersion,
		Split:          status.Split,
		Quarantined:    status.Quarantined,

		DiskFreeBytes: status.DiskFreeBytes,
	}
	if s.requireLeader() == nil {
		resp.FailoverPaused = s.pausedWhy(s.node.View())
	}
	if status.DiskFull != nil {
		resp.DiskFull = status.DiskFull.Error()
	}
	for _, m := range s.members() {
		if m.GetId() == s.memberID {
			resp.Member = m
		}
	}
	return resp, nil
}

func (s clusterService) ListMembers(ctx context.Context, req *metasrvpb.ListMembersRequest) (*metasrvpb.ListMembersResponse, error) {
	// raft on this member knows every configuration that the state is behind.
	r, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ListMembersResponse{
		Header: r.header(), Members: s.members(), ConfigurationIndex: s.node.Status().ConfigurationIndex,
	}, nil
}

// members returns the members as this one knows them, sorted by id.
func (s *services) members() []*metasrvpb.Member {
	var members []*metasrvpb.Member
	for _, m := range s.node.Members() {
		member := memberOf(m.Record)
		member.Voter, member.Leader = m.Voter, m.Leader
		members = append(members, member)
	}
	slices.SortFunc(members, func(a, b *metasrvpb.Member) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return members
}

func (s clusterService) OpenSession(ctx context.Context, req *metasrvpb.OpenSessionRequest) (*metasrvpb.OpenSessionResponse, error) {
	var result storagepb.OpenSessionResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, &storagepb.OpenSession{}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.OpenSessionResponse{Header: h, Session: result.GetSession()}, nil
}

func (s clusterService) CloseSession(ctx context.Context, req *metasrvpb.CloseSessionRequest) (*metasrvpb.CloseSessionResponse, error) {
	if req.GetSession() == 0 {
		return nil, metasrv.InvalidArgument("session", "is 0")
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION,
		&storagepb.CloseSession{Session: req.GetSession()}, &emptypb.Empty{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.CloseSessionResponse{Header: h}, nil
}
