package server

import (
	"context"
	"maps"
	"slices"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Hash returns the hashes of this member's states.
func (s maintenanceService) Hash(context.Context, *metasrvpb.HashRequest) (*metasrvpb.HashResponse, error) {
	status, hashes := s.node.Status(), s.node.Hashes()
	resp := &metasrvpb.HashResponse{
		Header:        &metasrvpb.ResponseHeader{Revision: status.Revision},
		Present:       &metasrvpb.StateHash{Index: hashes.Index, Hash: hashes.Hash},
		Build:         hashes.Build,
		ComparedIndex: status.ComparedIndex,
		Split:         status.Split,
	}
	for _, index := range slices.Sorted(maps.Keys(hashes.Earlier)) {
		resp.Earlier = append(resp.Earlier, &metasrvpb.StateHash{Index: index, Hash: hashes.Earlier[index]})
	}
	return resp, nil
}
