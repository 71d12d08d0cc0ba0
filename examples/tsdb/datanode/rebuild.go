package datanode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	"github.com/metasrv/metasrv"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// copyBytes is the size of the parts that a copy travels in.
	copyBytes = 1 << 20
	// maxCopies is how many copies a node sends at a time.
	maxCopies = 2
)

// rebuild replaces the follower by a copy of the leader's replica, because of why. Only a replica that no write waits for is
// replaced: one in the in-sync set has all that was ever acknowledged, and leaves the set first.
func (f *follower) rebuild(peer *metasrvpb.Peer, why error) error {
	l := f.l
	l.mu.Lock()
	required := f.required()
	if !required {
		// The tail that follows the copy must not be deleted before the follower has it.
		f.holds = l.committed + 1
		l.hold()
	}
	l.mu.Unlock()
	if required {
		return why
	}
	s := l.region.service
	select {
	case s.copies <- struct{}{}:
		defer func() { <-s.copies }()
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	r := l.region.replica
	s.logger.Info("replica is rebuilt from a copy", "region_id", r.Region(), "replica_id", f.id, "target_node_id", peer.GetId(), "reason", why)
	path, err := r.Snapshot(f.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(path) }() // what stays is deleted at the next start
	if err := f.copyTo(peer, path); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	s.logger.Info("replica was rebuilt", "region_id", r.Region(), "replica_id", f.id, "target_node_id", peer.GetId())
	l.mu.Lock()
	f.known = false // where it is now, find finds out
	l.mu.Unlock()
	return nil
}

// hold keeps the part of the log that rebuilt followers still need, as long as the leadership lasts. l.mu is held.
func (l *leadership) hold() {
	if l.over != nil {
		return
	}
	from := uint64(0)
	for _, f := range l.followers {
		if f.holds > 0 && (from == 0 || f.holds < from) {
			from = f.holds
		}
	}
	l.region.replica.Hold(from)
}

func (f *follower) copyTo(peer *metasrvpb.Peer, path string) (err error) {
	c, err := f.l.region.service.peer(peer.GetAddr())
	if err != nil {
		return err
	}
	file, err := os.Open(path) //nolint:gosec // a name of ours
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	stream, err := c.Install(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&tsdbpb.InstallRequest{Route: f.route()})
	if err == nil {
		err = eachPart(file, func(part []byte) error { return stream.Send(&tsdbpb.InstallRequest{Data: part}) })
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err // the stream is cancelled: what was sent is no whole copy
	}
	_, err = stream.CloseAndRecv() // says why nothing more was taken, too
	return err
}

// eachPart calls fn with all that it reads, in parts of copyBytes, until one returns an error.
func eachPart(file io.Reader, fn func(part []byte) error) error {
	buffer := make([]byte, copyBytes)
	for {
		n, err := io.ReadFull(file, buffer)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
			return err
		}
		if err := fn(buffer[:n]); err != nil {
			return err
		}
	}
}

// Install replaces a replica by a copy of the region leader's.
func (s *Service) Install(stream grpc.ClientStreamingServer[tsdbpb.InstallRequest, tsdbpb.InstallResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	end, err := s.install(stream, first.GetRoute())
	if err != nil {
		return toStatus(err)
	}
	return stream.SendAndClose(&tsdbpb.InstallResponse{End: &tsdbpb.Position{Epoch: end.Epoch, Seq: end.Seq}})
}

func (s *Service) install(
	stream grpc.ClientStreamingServer[tsdbpb.InstallRequest, tsdbpb.InstallResponse], route *tsdbpb.Route,
) (end store.Position, err error) {
	r, err := s.named(route)
	if err != nil {
		return end, err
	}
	region, epoch := metasrv.RegionID(route.GetRegionId()), route.GetLeaderEpoch()
	state := r.State()
	switch {
	case epoch < state.LeaderEpoch:
		return end, invalid(region, r, "the copy is of an older leader_epoch")
	case state.Leads() && epoch == state.LeaderEpoch:
		return end, invalid(region, r, "the replica on this datanode is no follower")
	}
	in, err := s.store.Receive(r)
	if err != nil {
		return end, err
	}
	defer func() { err = errors.Join(err, in.Discard()) }()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return end, err
		}
		if _, err := in.Write(part.GetData()); err != nil {
			return end, err
		}
	}
	g := s.region(r)
	g.stopLeading(epoch, errHandedOver(g))
	ctx, cancel := context.WithTimeout(stream.Context(), dropTimeout)
	defer cancel()
	fresh, err := in.Install(ctx, epoch)
	if present, e := s.store.Replica(region); e == nil && present != r {
		s.forget(r)
	}
	if errors.Is(err, store.ErrStaleEpoch) {
		return end, invalid(region, r, err.Error())
	}
	if err != nil {
		return end, err
	}
	s.logger.Info("replica was replaced by a copy of the region leader's", "region_id", region, "replica_id", fresh.ID(),
		"leader_epoch", epoch, "seq", fresh.State().StoredSeq)
	s.registration.Beat()
	return fresh.State().End(), nil
}
