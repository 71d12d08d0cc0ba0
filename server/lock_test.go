package server

import (
	"context"
	"testing"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (m *testMemberServer) locks() metasrvpb.LockClient { return metasrvpb.NewLockClient(m.conn) }
func (m *testMemberServer) election() metasrvpb.ElectionClient {
	return metasrvpb.NewElectionClient(m.conn)
}

// A lock without a holder, as the early public protocol has it: the next caller waits for its end, and takes its place up
// where it doesn't wait.
func TestLockWithoutHolder(t *testing.T) {
	m := startLeader(t)
	ctx := timeout(t)
	first, err := m.locks().Lock(ctx, &metasrvpb.LockRequest{Name: []byte("x"), ExpireSecs: 3600, HolderName: "me"})
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := m.locks().Lock(impatient, &metasrvpb.LockRequest{Name: []byte("x"), ExpireSecs: 3600}); err == nil {
		t.Fatal("two have the lock")
	}
	eventually(t, "who gave up is not in line any more", func() bool { return len(m.claims(t, "x")) == 1 })
	if claims := m.claims(t, "x"); claims[0].GetHolderName() != "me" || claims[0].GetFencingToken() != first.GetFencingToken() {
		t.Errorf("in line: %v", claims)
	}

	second := make(chan *metasrvpb.LockResponse, 1)
	go func() {
		r, err := m.locks().Lock(ctx, &metasrvpb.LockRequest{Name: []byte("x"), ExpireSecs: 1})
		if err != nil {
			t.Error(err)
		}
		second <- r
	}()
	eventually(t, "the second is in line", func() bool { return len(m.claims(t, "x")) == 2 })
	for range 2 { // doing it twice does no harm
		if _, err := m.locks().Unlock(ctx, &metasrvpb.UnlockRequest{Key: first.GetKey()}); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-second; r.GetFencingToken() <= first.GetFencingToken() {
		t.Errorf("token %d after %d", r.GetFencingToken(), first.GetFencingToken())
	}
	third, err := m.locks().OpenHolder(ctx, &metasrvpb.OpenHolderRequest{TtlMs: 60_000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.locks().Lock(impatient, &metasrvpb.LockRequest{Name: []byte("x"), Holder: third.GetHolder()}); err == nil {
		t.Fatal("two have the lock")
	}
	m.unlockByName(t, "x", third.GetHolder())
	m.node.Advance(2 * time.Second)
	eventually(t, "the second has expired", func() bool { return len(m.claims(t, "x")) == 0 })
}

// unlockByName takes back the claim of a holder whose key never came, and finds that half a name is refused.
func (m *testMemberServer) unlockByName(t *testing.T, name string, holder uint64) {
	t.Helper()
	for field, half := range map[string]*metasrvpb.UnlockRequest{
		"holder": {Name: []byte(name)}, "name": {Holder: holder}, "key": {Name: []byte(name), Holder: holder, Key: []byte("12345678x")},
	} {
		if _, err := m.locks().Unlock(timeout(t), half); refusalOf(err).Field != field {
			t.Errorf("unlocked by %v: %v", half, err)
		}
	}
	if _, err := m.locks().Unlock(timeout(t), &metasrvpb.UnlockRequest{Name: []byte(name), Holder: holder}); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.claims(t, name) {
		if c.GetHolder() == holder {
			t.Error("the claim is still there")
		}
	}
}

func (m *testMemberServer) claims(t *testing.T, name string) []*metasrvpb.HolderClaim {
	t.Helper()
	r, err := m.locks().ListLocks(timeout(t), &metasrvpb.ListLocksRequest{Prefix: []byte(name)})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GetNames()) == 0 {
		return nil
	}
	return r.GetNames()[0].GetClaims()
}

// The claim of a holder keeps its place while its caller asks again.
func TestHolderKeepsItsPlace(t *testing.T) {
	m := startLeader(t)
	ctx := timeout(t)
	var holders []uint64
	for range 2 {
		r, err := m.locks().OpenHolder(ctx, &metasrvpb.OpenHolderRequest{TtlMs: 60_000})
		if err != nil {
			t.Fatal(err)
		}
		holders = append(holders, r.GetHolder())
	}
	campaign := func(ctx context.Context, holder uint64) (*metasrvpb.CampaignResponse, error) {
		return m.election().Campaign(ctx, &metasrvpb.CampaignRequest{Name: []byte("x"), Holder: holder, Value: []byte("v")})
	}
	first, err := campaign(ctx, holders[0])
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := campaign(impatient, holders[1]); refusalOf(err).Reason != "STILL_WAITING" {
		t.Errorf("a candidate whose caller has little time: %v", err)
	}
	if _, err := m.election().Resign(ctx, &metasrvpb.ResignRequest{Name: []byte("x"), Holder: holders[0]}); err != nil {
		t.Fatal(err)
	}
	second, err := campaign(ctx, holders[1])
	if err != nil || second.GetElected().GetFencingToken() <= first.GetElected().GetFencingToken() {
		t.Errorf("the second: %v, %v", second, err)
	}
	if r, err := m.election().Leader(ctx, &metasrvpb.LeaderRequest{Name: []byte("x")}); err != nil || r.GetElected().GetHolder() != holders[1] {
		t.Errorf("elected: %v, %v", r, err)
	}
	stale := &metasrvpb.ProclaimRequest{Name: []byte("x"), Holder: holders[0], FencingToken: first.GetElected().GetFencingToken()}
	if _, err := m.election().Proclaim(ctx, stale); refusalOf(err).Reason != "NOT_HELD" {
		t.Errorf("who resigned proclaims: %v", err)
	}
}
