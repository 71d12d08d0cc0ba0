package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/lock"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// electionService is the Election service over package lock.
type electionService struct {
	metasrvpb.UnimplementedElectionServer
	*services
}

func (s electionService) Campaign(ctx context.Context, req *metasrvpb.CampaignRequest) (*metasrvpb.CampaignResponse, error) {
	if err := lock.ValidateName(req.GetName()); err != nil {
		return nil, err
	}
	if req.GetHolder() == 0 {
		return nil, metasrv.InvalidArgument("holder", "is 0: a candidate is a holder, made by Lock.OpenHolder")
	}
	var result storagepb.ClaimResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CLAIM, &storagepb.Claim{
		Kind: elections, Name: req.GetName(), Holder: req.GetHolder(), Value: req.GetValue(),
	}, &result)
	if err != nil {
		return nil, err
	}
	claim := result.GetClaim()
	if result.GetAhead() > 0 {
		wait := claimWait{services: s.services, kind: elections, name: req.GetName(), holder: req.GetHolder()}
		if claim, err = wait.untilHeld(ctx); err != nil {
			return nil, err
		}
		h = revision(s.node.View())
	}
	return &metasrvpb.CampaignResponse{Header: h, Elected: elected(s.node.View(), claim)}, nil
}

func (s electionService) Proclaim(ctx context.Context, req *metasrvpb.ProclaimRequest) (*metasrvpb.ProclaimResponse, error) {
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_PROCLAIM, &storagepb.Proclaim{
		Kind: elections, Name: req.GetName(), Holder: req.GetHolder(), FencingToken: req.GetFencingToken(), Value: req.GetValue(),
	}, &storagepb.ClaimResult{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ProclaimResponse{Header: h}, nil
}

func (s electionService) Resign(ctx context.Context, req *metasrvpb.ResignRequest) (*metasrvpb.ResignResponse, error) {
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_WITHDRAW,
		&storagepb.Withdraw{Kind: elections, Name: req.GetName(), Holder: req.GetHolder()}, &storagepb.ClaimResult{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ResignResponse{Header: h}, nil
}

func (s electionService) Leader(ctx context.Context, req *metasrvpb.LeaderRequest) (*metasrvpb.LeaderResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	if err := lock.ValidateName(req.GetName()); err != nil {
		return nil, err
	}
	e, err := electedOf(view, req.GetName())
	if err != nil {
		return nil, err
	}
	return &metasrvpb.LeaderResponse{Header: view.header(), Elected: e}, nil
}

func (s electionService) Observe(req *metasrvpb.LeaderRequest, stream grpc.ServerStreamingServer[metasrvpb.LeaderResponse]) error {
	if err := lock.ValidateName(req.GetName()); err != nil {
		return err
	}
	ctx := stream.Context()
	if _, err := s.waitRevision(ctx, req.GetHeader().GetMinRevision()); err != nil {
		return err
	}
	changes := s.follow(elections, req.GetName())
	defer changes.close()
	var last *metasrvpb.ElectedCandidate
	for begun := false; ; {
		view := s.node.View()
		e, err := electedOf(view, req.GetName())
		if err != nil {
			return err
		}
		if !begun || !proto.Equal(e, last) {
			if err := stream.Send(&metasrvpb.LeaderResponse{Header: revision(view), Elected: e}); err != nil {
				return err
			}
			begun, last = true, e
		}
		if _, err := changes.next(ctx, nil); err != nil {
			return err
		}
	}
}

// electedOf returns who is elected, nil where nobody is.
func electedOf(view state.View, name []byte) (*metasrvpb.ElectedCandidate, error) {
	claims, err := lock.Claims(view, elections, name)
	if err != nil || len(claims) == 0 {
		return nil, err
	}
	return elected(view, claims[0]), nil
}

func elected(view state.View, claim *storagepb.ClaimRecord) *metasrvpb.ElectedCandidate {
	e := &metasrvpb.ElectedCandidate{Holder: claim.GetHolder(), FencingToken: claim.GetFencingToken(), Value: claim.GetValue()}
	if holder, err := lock.Holder(view, claim.GetHolder()); err == nil {
		e.HolderName = holder.GetName()
	} else if !errors.Is(err, metasrv.ErrHolderNotFound) {
		e.HolderName = err.Error()
	}
	return e
}
