package server

import (
	"google.golang.org/grpc"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// maintenanceService is the Maintenance service: copies of the state here, members in maintenance_member.go.
type maintenanceService struct {
	metasrvpb.UnimplementedMaintenanceServer
	*services
}

// Snapshot streams the state, at least as new as the request asks for.
func (s maintenanceService) Snapshot(req *metasrvpb.SnapshotRequest, stream grpc.ServerStreamingServer[metasrvpb.SnapshotResponse]) error {
	if _, err := s.read(stream.Context(), req.GetHeader()); err != nil {
		return err
	}
	snap := s.node.Snapshot()
	first := &metasrvpb.SnapshotResponse{
		Header:     &metasrvpb.ResponseHeader{Revision: snap.Meta.GetRevision()},
		TotalBytes: uint64(snap.Size()), //nolint:gosec // never negative
	}
	if err := stream.Send(first); err != nil {
		return err
	}
	return snap.Write(chunkWriter{stream})
}

// maxChunk bounds one message of a snapshot, in bytes.
const maxChunk = 1 << 20

// chunkWriter sends what is written as messages.
type chunkWriter struct {
	stream grpc.ServerStreamingServer[metasrvpb.SnapshotResponse]
}

func (w chunkWriter) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		chunk := p[sent:min(len(p), sent+maxChunk)]
		// The buffer is the writer's again after Send has returned: gRPC has encoded the message then.
		if err := w.stream.Send(&metasrvpb.SnapshotResponse{Chunk: chunk}); err != nil {
			return sent, err
		}
		sent += len(chunk)
	}
	return len(p), nil
}
