package machine

import (
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Machine holds the state and executes entries. It is not safe for concurrent use; the views it returns are.
type Machine struct {
	commands map[storagepb.CommandKind]executor
	tree     *tree
	pos      Position
	// sum is that of the hashes of all pairs in tree.
	sum uint64
	// known is the highest command version that the machine executes.
	known uint32
	// tx is that of the command under way.
	tx tx
}

// executor executes the commands of one kind.
type executor struct {
	applier state.Applier
	// since is the command version that they came with.
	since uint32
}

// Outcome is what an entry did.
type Outcome struct {
	// Results has one result a command. That of a command without id lacks its payload: it is in Messages.
	Results []*storagepb.Result
	// Messages has what appliers returned where it is not encoded. Only where somebody waits for a result it is
	// needed, so followers never encode it. Results that sessions remember are a part of the state.
	Messages []proto.Message
	// Revisions are the changes for the feed.
	Revisions []state.Revision
	// Written names every key that was written, perhaps more than once.
	Written []string
}

// New returns a machine with an empty state. It panics if two appliers claim the same kind of command, for that is
// a mistake in the program.
func New(appliers ...state.Applier) *Machine {
	m := &Machine{commands: make(map[storagepb.CommandKind]executor), known: EntryVersion}
	for _, a := range append([]state.Applier{m.system()}, appliers...) {
		for _, kind := range a.Kinds() {
			if _, taken := m.commands[kind]; taken {
				panic(fmt.Sprintf("two appliers for %s", kind))
			}
			m.commands[kind] = executor{applier: a, since: sinceOf(a, kind)}
		}
	}
	m.Reset(NewView(Position{}, func(func(string, []byte) bool) {}))
	return m
}

// Reset replaces the state.
func (m *Machine) Reset(v *View) {
	m.tree = v.tree.Copy()
	m.pos = v.pos
	m.sum = v.sum
}

// View returns the present state.
func (m *Machine) View() *View { return &View{tree: m.tree.Copy(), pos: m.pos, sum: m.sum} }

// Get returns the value of a key, which must not be modified.
func (m *Machine) Get(key string) ([]byte, bool) { return m.tree.Get(key) }

// Ascend returns the pairs with from <= key < to in order; an empty to means no upper end. Nothing is applied meanwhile.
func (m *Machine) Ascend(from, to string) iter.Seq2[string, []byte] { return ascend(m.tree, from, to) }

// Revision returns the number of commands that have changed something.
func (m *Machine) Revision() uint64 { return m.pos.Revision }

// ClusterVersion returns the command version that every member knows.
func (m *Machine) ClusterVersion() uint32 { return m.pos.Version }

// Position says which state the present one is.
func (m *Machine) Position() Position { return m.pos }

// SkipTo records that the entries up to index hold nothing for the state.
func (m *Machine) SkipTo(index, term uint64) { m.pos.Index, m.pos.Term = index, term }

// Apply executes the entry at an index of the log; term is the one that the log holds for it. An error means
// that this build can't execute the entry: the member must stop, or its state would differ from the others'.
func (m *Machine) Apply(index, term uint64, data []byte) (Outcome, error) {
	entry := &storagepb.Entry{}
	err := state.Decode(data, entry)
	if tooOld := m.check(entry.Version); tooOld != nil {
		err = tooOld // says more than that there are fields that this build doesn't know
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("entry %d: %w", index, err)
	}
	if entry.Version < FirstVersion {
		return Outcome{}, fmt.Errorf("entry %d has no version", index)
	}
	m.pos.Now = max(m.pos.Now, state.LeaderTime(entry.LeaderTimeMs))
	out := Outcome{
		Results:   make([]*storagepb.Result, len(entry.Commands)),
		Messages:  make([]proto.Message, len(entry.Commands)),
		Revisions: make([]state.Revision, 0, len(entry.Commands)),
		Written:   make([]string, 0, len(entry.Commands)),
	}
	room := make([]storagepb.Result, len(entry.Commands))
	for i, c := range entry.Commands {
		result := &room[i]
		if since := m.Since(c.Kind); since > entry.Version {
			result, err = refusal(metasrv.ErrClusterVersion.With("%s came with version %d, it can't be executed in an entry of version %d",
				c.Kind, since, entry.Version), m.pos.Revision)
		} else {
			result, out.Messages[i], err = m.command(term, c, result, &out)
		}
		if err != nil {
			return Outcome{}, fmt.Errorf("entry %d, command %d: %w", index, i, err)
		}
		out.Results[i] = result
	}
	m.pos.Index, m.pos.Term = index, term
	return out, nil
}

// command executes one command: at most once if it has an id. room is for its result.
func (m *Machine) command(term uint64, c *storagepb.Command, room *storagepb.Result, out *Outcome) (*storagepb.Result, proto.Message, error) {
	if c.Id != nil {
		result, err := m.once(term, c, room, out)
		return result, nil, err
	}
	return m.execute(term, c, room, out)
}

// execute returns the result of a command without its payload, and the message that is to be it.
func (m *Machine) execute(term uint64, c *storagepb.Command, room *storagepb.Result, out *Outcome) (*storagepb.Result, proto.Message, error) {
	executor, known := m.commands[c.Kind]
	if !known {
		return nil, nil, fmt.Errorf("kind %s is unknown to this version of metasrv", c.Kind)
	}
	if c.PlannedTerm != 0 && c.PlannedTerm != term {
		r, err := refusal(metasrv.ErrStaleTerm.With("%s was planned in term %d, it is now %d", c.Kind, c.PlannedTerm, term), m.pos.Revision)
		return r, nil, err
	}
	t := &m.tx
	t.begin(m)
	message, err := executor.applier.Apply(t, c.Kind, c.Payload)
	if err != nil {
		t.rollback()
		r, err := refusal(err, m.pos.Revision)
		return r, nil, err
	}
	if changes := m.finish(t, out); len(changes) > 0 {
		m.pos.Revision++
		out.Revisions = append(out.Revisions, state.Revision{Number: m.pos.Revision, Changes: changes})
	}
	room.Revision = m.pos.Revision
	return room, message, nil
}

// finish takes what a transaction wrote into the outcome and the hash, and returns its changes for the feed.
func (m *Machine) finish(t *tx, out *Outcome) []state.Change {
	changes := t.changes(out)
	m.sum += t.sum
	return changes
}

// Result returns what the proposer of a command gets.
func (o *Outcome) Result(i int) (state.Result, error) {
	r, err := ResultOf(o.Results[i])
	r.Message = o.Messages[i]
	return r, err
}

// Encoded returns all results with their payloads.
func (o *Outcome) Encoded() []*storagepb.Result {
	for i, message := range o.Messages {
		if message != nil {
			o.Results[i].Payload, o.Messages[i] = state.Encode(message), nil
		}
	}
	return o.Results
}

// refusal turns a domain error into a result. Any other error stops the member: it is not certain that the others
// would see it too.
func refusal(err error, revision uint64) (*storagepb.Result, error) {
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok {
		return nil, err
	}
	return &storagepb.Result{
		Revision: revision,
		Refusal:  &storagepb.Refusal{Reason: e.Reason, Message: e.Message, Field: e.Field},
	}, nil
}

// ResultOf returns what a proposer gets for a stored result.
func ResultOf(r *storagepb.Result) (state.Result, error) {
	if r.Refusal != nil {
		return state.Result{Revision: r.Revision}, metasrv.ErrorOf(r.Refusal.Reason, r.Refusal.Message, r.Refusal.Field)
	}
	return state.Result{Payload: r.Payload, Revision: r.Revision}, nil
}
