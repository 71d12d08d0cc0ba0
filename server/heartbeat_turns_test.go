package server

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/heartbeat"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// The beats of all streams share the member's turns, and of those that have piled up on a stream not each is answered.
func TestBeatsThatPileUp(t *testing.T) {
	m := startLeader(t, func(c *Config) { c.HeartbeatInterval, c.RegionLease = 20*time.Second, 50*time.Second })
	d := m.addDatanode(t, 1)
	eventually(t, "a beat that stays without an answer", func() bool {
		if err := m.services.turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		taken := m.services.beats.Beats.Load()
		const beats = 3
		for range beats {
			d.sequence++
			if err := d.stream.Send(&metasrvpb.HeartbeatRequest{Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:1"}, Sequence: d.sequence}); err != nil {
				t.Fatal(err)
			}
		}
		if m.services.beats.Beats.Load() != taken {
			t.Fatal("a beat was taken without a turn")
		}
		m.services.turns.Give()
		for answered := uint64(0); answered < d.sequence; {
			resp, err := d.stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			answered = resp.GetSequence()
		}
		return m.services.beats.Superseded.Load() > 0
	})
}

// A long list is decoded in a turn: it is as much work as its judgement.
func TestLongListsAreDecodedInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := heartbeat.NewTurns(1)
		c := newCodec(turns)
		long := &metasrvpb.HeartbeatRequest{}
		for i := range uint64(1000) {
			long.RegionStats = append(long.RegionStats, &metasrvpb.RegionStat{RegionId: i, ReplicaId: i})
		}
		decode := func(m *metasrvpb.HeartbeatRequest) (decoded chan error) {
			encoded, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			decoded = make(chan error, 1)
			go func() {
				decoded <- c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(encoded)}, &metasrvpb.HeartbeatRequest{})
			}()
			synctest.Wait()
			return decoded
		}
		if err := turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		waits, short := decode(long), decode(&metasrvpb.HeartbeatRequest{Sequence: 1})
		if len(waits) != 0 || len(short) != 1 {
			t.Errorf("without a turn %d long and %d short lists were decoded", len(waits), len(short))
		}
		turns.Give()
		if err := <-waits; err != nil {
			t.Error(err)
		}
	})
}
