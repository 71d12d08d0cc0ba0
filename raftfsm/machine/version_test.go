package machine

import (
	"errors"
	"strings"
	"testing"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	raise   = storagepb.CommandKind_COMMAND_KIND_SET_CLUSTER_VERSION
	publish = storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER
)

// newVersionFixture returns a machine that knows versions up to 3 with members a and b, of which b knows up to 2.
func newVersionFixture(t *testing.T) *clockFixture {
	f := newClockFixture(t)
	f.Know(3)
	f.do(publish, &storagepb.PublishMember{Member: &storagepb.MemberRecord{Id: "a", CommandVersion: 3}})
	f.do(publish, &storagepb.PublishMember{Member: &storagepb.MemberRecord{Id: "b", CommandVersion: 2}})
	return f
}

func TestClusterVersionOnlyRises(t *testing.T) {
	f := newVersionFixture(t)
	for _, s := range []struct {
		name            string
		from, to, after uint32
	}{
		{"planned on another version", 2, 3, 1},
		{"to itself", 1, 1, 1},
		{"beyond what b knows", 1, 3, 1},
		{"to what all know", 1, 2, 2},
		{"again", 1, 2, 2},
		{"back", 2, 1, 2},
	} {
		_, err := ResultOf(f.do(raise, &storagepb.SetClusterVersion{From: s.from, Version: s.to}))
		if raised := s.name == "to what all know"; raised != (err == nil) || !raised && !errors.Is(err, metasrv.ErrClusterVersion) {
			t.Errorf("%s: %v", s.name, err)
		}
		if got := f.Position().Version; got != s.after || ClusterVersion(f.View()) != s.after {
			t.Errorf("%s: the version is %d, in the state %d, want %d", s.name, got, ClusterVersion(f.View()), s.after)
		}
	}
	if got := loaded(f.View()).Position().Version; got != 2 {
		t.Errorf("a member that loads the state is at version %d, want 2", got)
	}
}

// What a build doesn't know it never executes; the message says what to do.
func TestLaterVersionStopsTheMember(t *testing.T) {
	raised := state.Encode(&storagepb.SetClusterVersion{From: 1, Version: 2})
	unknownField := append(state.Encode(&storagepb.Entry{Version: 2}), 0xf8, 0x7f, 1)
	for name, entry := range map[string][]byte{
		"an entry":                       state.Encode(&storagepb.Entry{Version: 2}),
		"an entry with an unknown field": unknownField,
		"a cluster version":              state.Encode(&storagepb.Entry{Version: 1, Commands: []*storagepb.Command{{Kind: raise, Payload: raised}}}),
	} {
		f := newVersionFixture(t)
		f.Know(1)
		before := f.View().Hash()
		_, err := f.Apply(f.index+1, 1, entry)
		if tooOld, ok := errors.AsType[*TooOldError](err); !ok || tooOld.Need != 2 || tooOld.Known != 1 || !strings.Contains(err.Error(), "install") {
			t.Errorf("%s of version 2: %v", name, err)
		}
		if f.View().Hash() != before && name != "a cluster version" {
			t.Errorf("%s of version 2 changed the state", name)
		}
	}
}

// A kind of command is never executed in an entry of a version before it.
func TestCommandNeedsItsVersion(t *testing.T) {
	const later = storagepb.CommandKind(2000)
	m := New(state.NewApplier(state.On(later, func(tx state.Tx, c *storagepb.Put) (*storagepb.KvResult, error) {
		tx.Put("later", nil)
		return &storagepb.KvResult{}, nil
	}).Since(2)))
	m.Know(2)
	if m.Since(later) != 2 || m.Since(put) != 0 || m.Since(raise) != 1 {
		t.Errorf("since %d, %d, %d", m.Since(later), m.Since(put), m.Since(raise))
	}
	for version, executed := range []bool{1: false, 2: true} {
		if version == 0 {
			continue
		}
		version := uint32(version)
		out, err := m.Apply(uint64(version), 1, state.Encode(&storagepb.Entry{Version: version, Commands: []*storagepb.Command{command(later, "a", "")}}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ResultOf(out.Results[0]); (err == nil) != executed || err != nil && !errors.Is(err, metasrv.ErrClusterVersion) {
			t.Errorf("in an entry of version %d: %v", version, err)
		}
	}
}
