package e2e

import (
	"google.golang.org/grpc/status"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// leaderIn returns the client address that a NOT_LEADER error names, "" where it is none.
func leaderIn(err error) string {
	for _, d := range status.Convert(err).Details() {
		if n, ok := d.(*metasrvpb.NotLeader); ok {
			return n.Leader.GetGrpcAddr()
		}
	}
	return ""
}
