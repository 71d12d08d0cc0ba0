package machine

import (
	"iter"
	"strings"

	"github.com/metasrv/metasrv/raftfsm/state"
)

// SystemPrefix begins the keys of the machine itself: members, sessions. Changes of them are in the state but
// have no revision and are not in the feed.
const SystemPrefix = "sys/"

func isSystem(key string) bool { return strings.HasPrefix(key, SystemPrefix) }

// Position says which state this is.
type Position struct {
	// Index and Term are those of the last raft entry in the state.
	Index, Term uint64
	Revision    uint64
	Now         state.LeaderTime
	// Version is the cluster version.
	Version uint32
}

// View is one immutable state.
type View struct {
	tree *tree
	pos  Position
	// sum is that of the hashes of all pairs.
	sum uint64
}

// NewView returns the state with the given pairs at a position.
func NewView(pos Position, pairs iter.Seq2[string, []byte]) *View {
	v := &View{tree: newTree(), pos: pos}
	for key, value := range pairs {
		v.tree.Set(key, value)
		v.sum += pairHash(key, value)
	}
	v.pos.Version = ClusterVersion(v)
	return v
}

// Get returns the value of key.
func (v *View) Get(key string) ([]byte, bool) { return v.tree.Get(key) }

// Ascend returns the pairs with from <= key < to in order; an empty to means no upper end.
func (v *View) Ascend(from, to string) iter.Seq2[string, []byte] { return ascend(v.tree, from, to) }

// Len returns the number of keys.
func (v *View) Len() int { return v.tree.Len() }

// Revision returns the number of commands that have changed something.
func (v *View) Revision() uint64 { return v.pos.Revision }

// ClusterVersion returns the command version that every member knows.
func (v *View) ClusterVersion() uint32 { return v.pos.Version }

// Position says which state this is.
func (v *View) Position() Position { return v.pos }

func ascend(t *tree, from, to string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		t.Ascend(from, func(key string, value []byte) bool {
			if to != "" && key >= to {
				return false
			}
			return yield(key, value)
		})
	}
}
