package server

import (
	"context"
	"strings"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm"
)

// AddMember takes a member in as a non-voter.
func (s maintenanceService) AddMember(ctx context.Context, req *metasrvpb.AddMemberRequest) (*metasrvpb.AddMemberResponse, error) {
	server, err := serverOf(req.GetId(), req.GetRaftAddr())
	if err != nil {
		return nil, err
	}
	index, err := s.node.AddMember(ctx, server, raftfsm.Change{At: req.GetConfigurationIndex()})
	if err != nil {
		return nil, err
	}
	s.log.Info("member added as a non-voter", "added", server.ID, "raft_addr", server.RaftAddr, "index", index)
	return &metasrvpb.AddMemberResponse{Header: revision(s.node.View()), ConfigurationIndex: index}, nil
}

// PromoteMember makes a non-voter a voter.
func (s maintenanceService) PromoteMember(ctx context.Context, req *metasrvpb.PromoteMemberRequest) (*metasrvpb.PromoteMemberResponse, error) {
	if err := validateMemberID(req.GetId()); err != nil {
		return nil, err
	}
	index, err := s.node.PromoteMember(ctx, req.GetId(), raftfsm.Change{At: req.GetConfigurationIndex()})
	if err != nil {
		return nil, err
	}
	s.log.Info("member promoted to a voter", "promoted", req.GetId(), "index", index)
	return &metasrvpb.PromoteMemberResponse{Header: revision(s.node.View()), ConfigurationIndex: index}, nil
}

// RemoveMember removes a member for ever.
func (s maintenanceService) RemoveMember(ctx context.Context, req *metasrvpb.RemoveMemberRequest) (*metasrvpb.RemoveMemberResponse, error) {
	if err := validateMemberID(req.GetId()); err != nil {
		return nil, err
	}
	index, err := s.node.RemoveMember(ctx, req.GetId(), raftfsm.Removal{Force: req.GetForce(), Shrink: req.GetShrink()}, raftfsm.Change{At: req.GetConfigurationIndex()})
	if err != nil {
		return nil, err
	}
	s.log.Info("member removed", "removed", req.GetId(), "force", req.GetForce(), "shrink", req.GetShrink(), "index", index)
	return &metasrvpb.RemoveMemberResponse{Header: revision(s.node.View()), ConfigurationIndex: index}, nil
}

// UpdateMember changes the raft address of a member.
func (s maintenanceService) UpdateMember(ctx context.Context, req *metasrvpb.UpdateMemberRequest) (*metasrvpb.UpdateMemberResponse, error) {
	server, err := serverOf(req.GetId(), req.GetRaftAddr())
	if err != nil {
		return nil, err
	}
	index, err := s.node.UpdateMember(ctx, server, raftfsm.Change{At: req.GetConfigurationIndex()})
	if err != nil {
		return nil, err
	}
	s.log.Info("raft address of a member changed", "changed", server.ID, "raft_addr", server.RaftAddr, "index", index)
	return &metasrvpb.UpdateMemberResponse{Header: revision(s.node.View()), ConfigurationIndex: index}, nil
}

// TransferLeadership makes another voter the metasrv leader.
func (s maintenanceService) TransferLeadership(
	ctx context.Context, req *metasrvpb.TransferLeadershipRequest,
) (*metasrvpb.TransferLeadershipResponse, error) {
	id, err := s.node.TransferLeadership(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	s.log.Info("leadership handed over", "to", id)
	return &metasrvpb.TransferLeadershipResponse{Header: revision(s.node.View()), Id: id}, nil
}

func serverOf(id, raftAddr string) (raftfsm.Server, error) {
	if err := validateMemberID(id); err != nil {
		return raftfsm.Server{}, err
	}
	host, err := splitAddr(raftAddr)
	switch {
	case err != nil:
		return raftfsm.Server{}, metasrv.InvalidArgument("raft_addr", "%q is not host:port", raftAddr)
	case unspecified(host) || strings.HasSuffix(raftAddr, ":0"):
		return raftfsm.Server{}, metasrv.InvalidArgument("raft_addr", "%s can't be dialled; name the address at which the other members reach it", raftAddr)
	}
	return raftfsm.Server{ID: id, RaftAddr: raftAddr}, nil
}
