package client

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// threeMembers starts a metasrv leader, which is the last one, and two members that follow it. All answer reads of the
// state.
func threeMembers(t *testing.T) (ms []*fakeMember, addrs []string) {
	t.Helper()
	for range 3 {
		m := startMember(t)
		ms, addrs = append(ms, m), append(addrs, m.addr)
	}
	for i, m := range ms {
		m.onUnary(func(_ context.Context, method string, _ proto.Message) (proto.Message, error) {
			switch {
			case method == rangeMethod:
				return &metasrvpb.RangeResponse{}, nil
			case i < 2:
				return nil, refusal(metasrv.ErrNotLeader, &metasrvpb.NotLeader{Leader: &metasrvpb.Member{GrpcAddr: addrs[2]}})
			}
			return &metasrvpb.StatsResponse{}, nil
		})
	}
	return ms, addrs
}

func reads(t *testing.T, c *Client, n int) {
	t.Helper()
	for range n {
		if _, err := c.Store().Range(t.Context(), &metasrvpb.RangeRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

func wantCounts(t *testing.T, ms []*fakeMember, method string, want ...int) {
	t.Helper()
	for i, m := range ms {
		if n := m.count(method); n != want[i] {
			t.Errorf("member %d was asked %d times for %s, want %d", i, n, method, want[i])
		}
	}
}

func TestReadFrom(t *testing.T) {
	for name, test := range map[string]struct {
		from ReadFrom
		want []int
	}{
		"leader":  {ReadFromLeader, []int{0, 0, 6}},
		"any":     {ReadFromAny, []int{2, 2, 2}},
		"nearest": {ReadFromNearest, []int{6, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			ms, addrs := threeMembers(t)
			c := dial(t, func(cfg *Config) { cfg.ReadFrom = test.from }, addrs...)
			c.members.lead(addrs[2])
			reads(t, c, 6)
			wantCounts(t, ms, rangeMethod, test.want...)
			// What only the metasrv leader knows is asked of it at once.
			if _, err := c.Cluster().Stats(t.Context(), &metasrvpb.StatsRequest{}); err != nil {
				t.Fatal(err)
			}
			wantCounts(t, ms, metasrvpb.Cluster_Stats_FullMethodName, 0, 0, 1)
			if c.Leader() != addrs[2] {
				t.Errorf("%s is taken for the metasrv leader", c.Leader())
			}
		})
	}
}

// A member that can't tell whether its state is current, or is gone, is no reason to fail: another one is asked, and
// for a while first.
func TestReadFromNearestDoesWithoutIt(t *testing.T) {
	ms, addrs := threeMembers(t)
	c := dial(t, func(cfg *Config) { cfg.ReadFrom = ReadFromNearest }, addrs...)
	ms[0].answer(nil, refusal(metasrv.ErrNotReady))
	reads(t, c, 5)
	if n := ms[0].count(rangeMethod); n != 1 {
		t.Errorf("a member that is not ready was asked %d times", n)
	}
	ms[1].stop()
	reads(t, c, 3)
	if n := ms[2].count(rangeMethod); n < 3 {
		t.Errorf("the last member was asked %d times", n)
	}
}
