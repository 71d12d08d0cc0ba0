package state

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// Command is one kind of command with the function that executes it.
type Command struct {
	kind  storagepb.CommandKind
	since uint32
	needs func(payload proto.Message) uint32
	apply func(tx Tx, payload []byte) (proto.Message, error)
}

// Since returns the command as one that came with a later command version than the first. It is refused before the log
// until every member knows that version.
func (c Command) Since(version uint32) Command {
	c.since = version
	return c
}

// Needing returns the command as one that became able to say more with later command versions: needs returns the version
// that a payload needs, 0 for the first. A payload is refused before the log until every member knows that version.
func Needing[P proto.Message](c Command, needs func(P) uint32) Command {
	c.needs = func(payload proto.Message) uint32 {
		p, ok := payload.(P)
		if !ok {
			return 0
		}
		return needs(p)
	}
	return c
}

// On returns the command of a kind whose payload is a C. What apply returns is remembered as the command's result; an
// error of it must be a *metasrv.Error, or the member stops. So it does at a payload that this build can't decode, for
// other members may understand it.
func On[C any, P interface {
	*C
	proto.Message
}, R proto.Message](kind storagepb.CommandKind, apply func(Tx, P) (R, error)) Command {
	return Command{kind: kind, apply: func(tx Tx, payload []byte) (proto.Message, error) {
		command := P(new(C))
		if err := Decode(payload, command); err != nil {
			return nil, err
		}
		result, err := apply(tx, command)
		if err != nil {
			return nil, err
		}
		return result, nil
	}}
}

// NewApplier returns an applier of commands. It panics if two are of one kind, for that is a mistake in the program.
func NewApplier(commands ...Command) Applier {
	a := make(applier, len(commands))
	for _, c := range commands {
		if _, given := a[c.kind]; given {
			panic(fmt.Sprintf("%s is given twice", c.kind))
		}
		a[c.kind] = c
	}
	return a
}

type applier map[storagepb.CommandKind]Command

func (a applier) Kinds() []storagepb.CommandKind { return slices.Sorted(maps.Keys(a)) }

// Since returns the command version that a kind of command came with, 0 for the first.
func (a applier) Since(kind storagepb.CommandKind) uint32 { return a[kind].since }

// Needs returns the command version that a command needs, 0 for the first.
func (a applier) Needs(kind storagepb.CommandKind, payload proto.Message) uint32 {
	c := a[kind]
	if c.needs == nil {
		return c.since
	}
	return max(c.since, c.needs(payload))
}

func (a applier) Apply(tx Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	c, known := a[kind]
	if !known {
		return nil, fmt.Errorf("no applier for %s", kind)
	}
	return c.apply(tx, payload)
}
