package lock_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/lock"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	locks     = storagepb.ClaimKind_CLAIM_KIND_LOCK
	elections = storagepb.ClaimKind_CLAIM_KIND_ELECTION
	ttl       = 10 * time.Second
)

// cluster is the state, with the calls of this package.
type cluster struct{ *memory.Node }

func newCluster() cluster { return cluster{memory.New(lock.NewApplier())} }

func (c cluster) propose(kind storagepb.CommandKind, cmd, result proto.Message) error {
	r, err := c.Propose(context.Background(), state.Proposal{Kind: kind, Payload: cmd})
	if err != nil {
		return err
	}
	return r.Decode(result)
}

func (c cluster) open() (uint64, error) {
	result := &storagepb.HolderResult{}
	err := c.propose(storagepb.CommandKind_COMMAND_KIND_OPEN_HOLDER, &storagepb.OpenHolder{TtlMs: uint64(ttl.Milliseconds())}, result)
	return result.Holder, err
}

func (c cluster) keep(holder uint64) error {
	return c.propose(storagepb.CommandKind_COMMAND_KIND_KEEP_HOLDER, &storagepb.KeepHolder{Holder: holder}, &storagepb.HolderResult{})
}

func (c cluster) close(holder uint64) error {
	return c.propose(storagepb.CommandKind_COMMAND_KIND_CLOSE_HOLDER, &storagepb.CloseHolder{Holder: holder}, &storagepb.HolderResult{})
}

func (c cluster) claim(cmd *storagepb.Claim) (*storagepb.ClaimResult, error) {
	result := &storagepb.ClaimResult{}
	err := c.propose(storagepb.CommandKind_COMMAND_KIND_CLAIM, cmd, result)
	return result, err
}

func (c cluster) withdraw(kind storagepb.ClaimKind, name string, holder uint64) error {
	return c.propose(storagepb.CommandKind_COMMAND_KIND_WITHDRAW, &storagepb.Withdraw{Kind: kind, Name: []byte(name), Holder: holder}, &storagepb.ClaimResult{})
}

func (c cluster) expire(uses []*storagepb.HolderUse) (uint64, error) {
	result := &storagepb.ExpireHoldersResult{}
	err := c.propose(storagepb.CommandKind_COMMAND_KIND_EXPIRE_HOLDERS, &storagepb.ExpireHolders{Holders: uses}, result)
	return result.Expired, err
}

func (c cluster) holderOf(name string) (holder, token uint64) {
	claims, err := lock.Claims(c.View(), locks, []byte(name))
	if err != nil || len(claims) == 0 {
		return 0, 0
	}
	return claims[0].Holder, claims[0].FencingToken
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Who waits gets the name in order, each under a higher token; a claim that is sent again is the same one.
func TestClaimsAreServedInOrder(t *testing.T) {
	c := newCluster()
	a, b := must[uint64](t)(c.open()), must[uint64](t)(c.open())
	first := must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: a}))
	if first.Ahead != 0 || first.Claim.FencingToken != c.View().Revision() {
		t.Fatalf("the first claim: %v", first)
	}
	for range 2 {
		if waits := must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: b})); waits.Ahead != 1 || waits.Claim.FencingToken != 0 {
			t.Fatalf("the second claim: %v", waits)
		}
	}
	if other := must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: elections, Name: []byte("x"), Holder: b})); other.Ahead != 0 {
		t.Errorf("an election of the same name: %v", other)
	}
	if _, err := c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), TtlMs: 1000, NoWait: true}); !errors.Is(err, metasrv.ErrNotHeld) {
		t.Errorf("a claim that doesn't wait: %v", err)
	}
	for range 2 {
		if err := c.withdraw(locks, "x", a); err != nil {
			t.Fatal(err)
		}
	}
	if holder, token := c.holderOf("x"); holder != b || token <= first.Claim.FencingToken {
		t.Errorf("holder %d with token %d after %d with %d", holder, token, a, first.Claim.FencingToken)
	}
}

// A value is proclaimed by who holds the name, under the token that it holds it by.
func TestOnlyTheHolderProclaims(t *testing.T) {
	c := newCluster()
	a, b := must[uint64](t)(c.open()), must[uint64](t)(c.open())
	held := must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: elections, Name: []byte("x"), Holder: a, Value: []byte("1")}))
	must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: elections, Name: []byte("x"), Holder: b, Value: []byte("2")}))
	for _, try := range []struct {
		holder, token uint64
		want          error
	}{{a, held.Claim.FencingToken, nil}, {a, held.Claim.FencingToken - 1, metasrv.ErrNotHeld}, {b, held.Claim.FencingToken, metasrv.ErrNotHeld}} {
		err := c.propose(storagepb.CommandKind_COMMAND_KIND_PROCLAIM, &storagepb.Proclaim{
			Kind: elections, Name: []byte("x"), Holder: try.holder, FencingToken: try.token, Value: []byte("3"),
		}, &storagepb.ClaimResult{})
		if !errors.Is(err, try.want) {
			t.Errorf("holder %d under token %d: %v", try.holder, try.token, err)
		}
	}
	if claims := must[[]*storagepb.ClaimRecord](t)(lock.Claims(c.View(), elections, []byte("x"))); string(claims[0].Value) != "3" {
		t.Errorf("proclaimed is %q", claims[0].Value)
	}
}

// A holder that is not renewed loses what it holds, one that was renewed since it was found silent doesn't, and a new
// metasrv leader waits first.
func TestExpiry(t *testing.T) {
	c := newCluster()
	a, b := must[uint64](t)(c.open()), must[uint64](t)(c.open())
	must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: a}))
	must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: b}))
	c.Advance(ttl)
	if over := lock.ExpiredHolders(c.View(), 0, c.Now()); len(over) != 0 {
		t.Fatalf("expired at the end of their time: %v", over)
	}
	c.Advance(time.Millisecond)
	if over := lock.ExpiredHolders(c.View(), 1, c.Now()); len(over) != 0 {
		t.Fatalf("a new metasrv leader expires %v", over)
	}
	over := lock.ExpiredHolders(c.View(), 0, c.Now())
	if len(over) != 2 {
		t.Fatalf("expired: %v", over)
	}
	if err := c.keep(b); err != nil {
		t.Fatal(err)
	}
	if n := must[uint64](t)(c.expire(over)); n != 1 {
		t.Errorf("%d expired", n)
	}
	if holder, _ := c.holderOf("x"); holder != b {
		t.Errorf("holder %d has it", holder)
	}
	if err := c.keep(a); !errors.Is(err, metasrv.ErrHolderNotFound) {
		t.Errorf("the expired one is renewed: %v", err)
	}
}

// Who waited gets its whole time from the moment on at which it holds the name.
func TestTimeBeginsWithTheHolding(t *testing.T) {
	c := newCluster()
	a, b := must[uint64](t)(c.open()), must[uint64](t)(c.open())
	must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: a}))
	must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: b}))
	c.Advance(ttl - time.Second)
	if err := c.withdraw(locks, "x", a); err != nil {
		t.Fatal(err)
	}
	c.Advance(ttl)
	for _, over := range lock.ExpiredHolders(c.View(), 0, c.Now()) {
		if over.Holder == b {
			t.Error("the new holder has lost the rest of its time")
		}
	}
}

// A holder made by a claim ends with it.
func TestHolderOfAClaimEndsWithIt(t *testing.T) {
	c := newCluster()
	held := must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), TtlMs: 1000, HolderName: "me"}))
	if err := c.withdraw(locks, "x", held.Claim.Holder); err != nil {
		t.Fatal(err)
	}
	if err := c.keep(held.Claim.Holder); !errors.Is(err, metasrv.ErrHolderNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

// Another life of the cluster knows no holders, and gives out none of their ids again.
func TestAdopt(t *testing.T) {
	c := newCluster()
	a := must[uint64](t)(c.open())
	must[*storagepb.ClaimResult](t)(c.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: a}))
	adopted := cluster{memory.New(lock.NewApplier(), adopter{})}
	b := must[uint64](t)(adopted.open())
	must[*storagepb.ClaimResult](t)(adopted.claim(&storagepb.Claim{Kind: locks, Name: []byte("x"), Holder: b}))
	if _, err := adopted.Propose(t.Context(), state.Proposal{Kind: adoptKind, Payload: &storagepb.RegisterNode{}}); err != nil {
		t.Fatal(err)
	}
	if holder, _ := adopted.holderOf("x"); holder != 0 {
		t.Errorf("holder %d has it", holder)
	}
	if next := must[uint64](t)(adopted.open()); next <= b+1<<39 {
		t.Errorf("the next holder is %d", next)
	}
}

// adoptKind stands for the adoption of a state, which is no command.
const adoptKind = storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE

type adopter struct{}

func (adopter) Kinds() []storagepb.CommandKind { return []storagepb.CommandKind{adoptKind} }

func (adopter) Apply(tx state.Tx, _ storagepb.CommandKind, _ []byte) (proto.Message, error) {
	return nil, lock.Adopt(tx)
}

// Whatever happens: who is first has a token and nobody else, the tokens of a name only rise, a holder has its places
// until it ends, and nobody takes over but the next in line.
func TestInvariants(t *testing.T) {
	names := []string{"x", "y", "x/y"}
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster()
		var holders []uint64
		lines, highest := map[string][]uint64{}, map[string]uint64{}
		leave := func(gone func(string, uint64) bool) {
			for name := range lines {
				lines[name] = slices.DeleteFunc(lines[name], func(h uint64) bool { return gone(name, h) })
			}
		}
		forget := func(holder uint64) {
			holders = slices.DeleteFunc(holders, func(h uint64) bool { return h == holder })
			leave(func(_ string, h uint64) bool { return h == holder })
		}
		some := func(t *rapid.T) uint64 {
			if len(holders) == 0 {
				t.Skip("no holder")
			}
			return rapid.SampledFrom(holders).Draw(t, "holder")
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				holder, err := c.open()
				if err != nil {
					t.Fatal(err)
				}
				holders = append(holders, holder)
			},
			"claim": func(t *rapid.T) {
				holder, name := some(t), rapid.SampledFrom(names).Draw(t, "name")
				result, err := c.claim(&storagepb.Claim{Kind: locks, Name: []byte(name), Holder: holder})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(lines[name], holder) {
					lines[name] = append(lines[name], holder)
				}
				if want := slices.Index(lines[name], holder); int(result.Ahead) != want {
					t.Fatalf("%d claims are ahead, not %d", result.Ahead, want)
				}
			},
			"withdraw": func(t *rapid.T) {
				holder, name := some(t), rapid.SampledFrom(names).Draw(t, "name")
				if err := c.withdraw(locks, name, holder); err != nil {
					t.Fatal(err)
				}
				leave(func(n string, h uint64) bool { return n == name && h == holder })
			},
			"close": func(t *rapid.T) {
				holder := some(t)
				if err := c.close(holder); err != nil {
					t.Fatal(err)
				}
				forget(holder)
			},
			"keep": func(t *rapid.T) {
				if err := c.keep(some(t)); err != nil {
					t.Fatal(err)
				}
			},
			"wait": func(t *rapid.T) {
				c.Advance(ttl / 3)
				over := lock.ExpiredHolders(c.View(), 0, c.Now())
				if n, err := c.expire(over); err != nil || int(n) != len(over) {
					t.Fatalf("%d of %d expired: %v", n, len(over), err)
				}
				for _, use := range over {
					forget(use.Holder)
				}
			},
			"": func(t *rapid.T) {
				for _, name := range names {
					claims, err := lock.Claims(c.View(), locks, []byte(name))
					if err != nil {
						t.Fatal(err)
					}
					var line []uint64
					for i, claim := range claims {
						line = append(line, claim.Holder)
						if (claim.FencingToken != 0) != (i == 0) {
							t.Fatalf("%q: claim %d has token %d", name, i, claim.FencingToken)
						}
					}
					if !slices.Equal(line, lines[name]) {
						t.Fatalf("%q: in line are %v, not %v", name, line, lines[name])
					}
					if len(claims) > 0 {
						if claims[0].FencingToken < highest[name] {
							t.Fatalf("%q: token %d after %d", name, claims[0].FencingToken, highest[name])
						}
						highest[name] = claims[0].FencingToken
					}
				}
				open := 0
				for range lock.Holders(c.View()) {
					open++
				}
				if open != len(holders) {
					t.Fatalf("%d holders, not %d", open, len(holders))
				}
			},
		})
	})
}
