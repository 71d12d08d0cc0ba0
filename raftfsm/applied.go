package raftfsm

import (
	"fmt"

	"github.com/hashicorp/raft"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Versions of images and snapshots: 1 has no hash of the state.
const (
	imageVersion     = snapshot.Version
	imageVersionHash = 2
)

// applied is one whole state of the member: what its raft entries up to a position made of it.
type applied struct {
	view *machine.View
	// configuration is the last one at or before the position.
	configuration      raft.Configuration
	configurationIndex uint64
}

func (a *applied) index() uint64 { return a.view.Position().Index }

// meta describes the state as images and snapshots carry it.
func (a *applied) meta() *storagepb.ImageMeta {
	pos := a.view.Position()
	return &storagepb.ImageMeta{
		Version:            imageVersion,
		Index:              pos.Index,
		Term:               pos.Term,
		Revision:           pos.Revision,
		LeaderTimeMs:       uint64(pos.Now),
		Configuration:      raft.EncodeConfiguration(a.configuration),
		ConfigurationIndex: a.configurationIndex,
		StateHash:          a.view.Hash(),
	}
}

// checkHash returns an error if pairs that hash to got are not the state that meta describes.
func checkHash(meta *storagepb.ImageMeta, got uint64) error {
	if meta.Version < imageVersionHash || got == meta.StateHash {
		return nil
	}
	return fmt.Errorf("its pairs have the hash %016x, but the state at index %d has %016x", got, meta.Index, meta.StateHash)
}

func positionOf(meta *storagepb.ImageMeta) machine.Position {
	return machine.Position{
		Index:    meta.Index,
		Term:     meta.Term,
		Revision: meta.Revision,
		Now:      state.LeaderTime(meta.LeaderTimeMs),
	}
}

func configurationOf(meta *storagepb.ImageMeta) raft.Configuration {
	if len(meta.Configuration) == 0 {
		return raft.Configuration{}
	}
	return raft.DecodeConfiguration(meta.Configuration)
}
