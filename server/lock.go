package server

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/lock"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	locks     = storagepb.ClaimKind_CLAIM_KIND_LOCK
	elections = storagepb.ClaimKind_CLAIM_KIND_ELECTION

	// withdrawTimeout bounds the withdrawal of a claim whose caller has gone. What is left then expires.
	withdrawTimeout = time.Second
	// listedLocks is how many names one answer has where the request names no limit.
	listedLocks = 1000
)

// lockService is the Lock service over package lock.
type lockService struct {
	metasrvpb.UnimplementedLockServer
	*services
}

func (s lockService) Lock(ctx context.Context, req *metasrvpb.LockRequest) (*metasrvpb.LockResponse, error) {
	command, err := claimOfLock(req)
	if err != nil {
		return nil, err
	}
	var result storagepb.ClaimResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CLAIM, command, &result)
	if err != nil {
		return nil, err
	}
	claim := result.GetClaim()
	holder := claim.GetHolder()
	if result.GetAhead() > 0 {
		wait := claimWait{services: s.services, kind: locks, name: req.GetName(), holder: holder}
		if command.GetHolder() == 0 {
			wait.renew = time.Duration(command.GetTtlMs()) * time.Millisecond / 3 //nolint:gosec // bounded
			defer wait.withdrawUnlessHeld(ctx)
		}
		if claim, err = wait.untilHeld(ctx); err != nil {
			return nil, err
		}
		h = revision(s.node.View())
	}
	return &metasrvpb.LockResponse{Header: h, Key: lockKey(holder, req.GetName()), FencingToken: claim.GetFencingToken()}, nil
}

// claimOfLock returns the command that a request amounts to.
func claimOfLock(req *metasrvpb.LockRequest) (*storagepb.Claim, error) {
	if err := lock.ValidateName(req.GetName()); err != nil {
		return nil, err
	}
	command := &storagepb.Claim{Kind: locks, Name: req.GetName(), Holder: req.GetHolder(), NoWait: req.GetNoWait()}
	switch {
	case req.GetHolder() != 0 && req.GetExpireSecs() != 0:
		return nil, metasrv.InvalidArgument("expire_secs", "is given together with a holder, which has its own time to live")
	case req.GetHolder() != 0:
		return command, nil
	case req.GetExpireSecs() <= 0 || req.GetExpireSecs() > int64(lock.MaxTTL/time.Second):
		return nil, metasrv.InvalidArgument("expire_secs", "%d is not between 1 and %d", req.GetExpireSecs(), int64(lock.MaxTTL/time.Second))
	}
	command.TtlMs, command.HolderName = uint64(req.GetExpireSecs())*1000, req.GetHolderName()
	return command, nil
}

func (s lockService) Unlock(ctx context.Context, req *metasrvpb.UnlockRequest) (*metasrvpb.UnlockResponse, error) {
	holder, name, err := claimOfUnlock(req)
	if err != nil {
		return nil, err
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_WITHDRAW,
		&storagepb.Withdraw{Kind: locks, Name: name, Holder: holder}, &storagepb.ClaimResult{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.UnlockResponse{Header: h}, nil
}

func (s lockService) OpenHolder(ctx context.Context, req *metasrvpb.OpenHolderRequest) (*metasrvpb.OpenHolderResponse, error) {
	if err := lock.ValidateTTL(req.GetTtlMs()); err != nil {
		return nil, err
	}
	var result storagepb.HolderResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_OPEN_HOLDER,
		&storagepb.OpenHolder{TtlMs: req.GetTtlMs(), Name: req.GetName()}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.OpenHolderResponse{Header: h, Holder: result.GetHolder()}, nil
}

func (s lockService) KeepHolder(ctx context.Context, req *metasrvpb.KeepHolderRequest) (*metasrvpb.KeepHolderResponse, error) {
	var result storagepb.HolderResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_KEEP_HOLDER,
		&storagepb.KeepHolder{Holder: req.GetHolder()}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.KeepHolderResponse{Header: h, TtlMs: result.GetRecord().GetTtlMs()}, nil
}

func (s lockService) CloseHolder(ctx context.Context, req *metasrvpb.CloseHolderRequest) (*metasrvpb.CloseHolderResponse, error) {
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CLOSE_HOLDER,
		&storagepb.CloseHolder{Holder: req.GetHolder()}, &storagepb.HolderResult{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.CloseHolderResponse{Header: h}, nil
}

func (s lockService) ListLocks(ctx context.Context, req *metasrvpb.ListLocksRequest) (*metasrvpb.ListLocksResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	kind, limit := locks, int(req.GetLimit())
	if req.GetElections() {
		kind = elections
	}
	if limit == 0 {
		limit = listedLocks
	}
	resp := &metasrvpb.ListLocksResponse{Header: view.header()}
	for named, err := range lock.All(view, kind, req.GetPrefix()) {
		if err != nil {
			return nil, err
		}
		if len(resp.Names) == limit {
			resp.More = true
			break
		}
		resp.Names = append(resp.Names, s.namedClaims(view, named))
	}
	return resp, nil
}

// namedClaims shows the claims on a name. Their age is known on the metasrv leader only: it has the leader time.
func (s lockService) namedClaims(view reading, named lock.Named) *metasrvpb.NamedClaims {
	claims := &metasrvpb.NamedClaims{Name: named.Name}
	leadership, leads := s.node.Leadership()
	for _, c := range named.Claims {
		shown := &metasrvpb.HolderClaim{Holder: c.GetHolder(), FencingToken: c.GetFencingToken(), Value: c.GetValue()}
		if holder, err := lock.Holder(view, c.GetHolder()); err == nil {
			shown.HolderName, shown.TtlMs = holder.GetName(), holder.GetTtlMs()
		}
		if leads {
			now := uint64(leadership.Now())
			shown.AgeMs = now - min(now, c.GetClaimedAtMs())
		}
		claims.Claims = append(claims.Claims, shown)
	}
	return claims
}

// lockKey names a claim on a lock in the one field that the early public protocol has for it.
func lockKey(holder uint64, name []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, holder), name...)
}

// claimOfUnlock returns the holder and the lock of the claim that is to be taken back.
func claimOfUnlock(req *metasrvpb.UnlockRequest) (holder uint64, name []byte, err error) {
	key, byName := req.GetKey(), req.GetHolder() != 0 || len(req.GetName()) > 0
	switch {
	case len(key) > 0 && byName:
		return 0, nil, metasrv.InvalidArgument("key", "is given together with a name or a holder, which name a claim without it")
	case byName && req.GetHolder() == 0:
		return 0, nil, metasrv.InvalidArgument("holder", "is missing: whose claim on the lock is taken back?")
	case byName:
		return req.GetHolder(), req.GetName(), lock.ValidateName(req.GetName())
	case len(key) <= 8:
		return 0, nil, metasrv.InvalidArgument("key", "is not the key that Lock has answered with")
	}
	return binary.BigEndian.Uint64(key), key[8:], nil
}
