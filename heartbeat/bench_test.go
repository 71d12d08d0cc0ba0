package heartbeat

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// BenchmarkHandleBeat is one beat of a node with 1,000 replicas, from its bytes to those of the answer. What a million
// reports cost is a thousand times that.
func BenchmarkHandleBeat(b *testing.B) {
	const rounds = 20
	for _, bench := range []struct {
		name    string
		changed int
		full    bool
		epochs  bool
	}{
		{name: "unchanged"},
		{name: "5 % other counters", changed: 50},
		{name: "5 % other epochs", changed: 50, epochs: true},
		{name: "full", full: true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			c := newCluster(b)
			s := c.session(b)
			stats := regionStats(1000)
			mustBeat(b, s, leaseBeat(1, stats...))
			req := &metasrvpb.HeartbeatRequest{
				Peer: peer(1), FullReport: bench.full, Sequence: 1,
				ReportInterval: &metasrvpb.TimeInterval{StartTimestampMillis: 1000, EndTimestampMillis: 2000},
				NodeStat:       &metasrvpb.NodeStat{Rcus: 1000, Wcus: 1000},
			}
			// The second half takes back what the first half changed, so that they can go round.
			requests := make([][]byte, 2*rounds)
			for i := range requests {
				req.RegionStats = nil
				if bench.full {
					req.RegionStats = stats
				}
				for j := range bench.changed {
					stat := stats[(i*bench.changed+j)%len(stats)]
					stat.ApproximateRows++
					switch {
					case bench.epochs && i < rounds:
						stat.LeaderEpoch++
					case bench.epochs:
						stat.LeaderEpoch--
					}
					req.RegionStats = append(req.RegionStats, stat)
				}
				req.Digest = proto.Uint64(digest.Of(stats))
				requests[i], _ = proto.Marshal(req)
			}
			sequence := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				req := &metasrvpb.HeartbeatRequest{}
				if err := proto.Unmarshal(requests[sequence%(2*rounds)], req); err != nil {
					b.Fatal(err)
				}
				sequence++
				req.Sequence = 1 + sequence
				c.rules.judged, c.rules.views = c.rules.judged[:0], c.rules.views[:0]
				resp := mustBeat(b, s, req)
				if _, err := proto.Marshal(resp); err != nil || resp.LeaseMs == 0 {
					b.Fatal(resp, err)
				}
			}
		})
	}
}
