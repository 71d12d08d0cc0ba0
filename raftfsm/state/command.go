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
	apply func(tx Tx, payload []byte) (proto.Message, error)
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
		if a[c.kind] != nil {
			panic(fmt.Sprintf("%s is given twice", c.kind))
		}
		a[c.kind] = c.apply
	}
	return a
}

type applier map[storagepb.CommandKind]func(Tx, []byte) (proto.Message, error)

func (a applier) Kinds() []storagepb.CommandKind { return slices.Sorted(maps.Keys(a)) }

func (a applier) Apply(tx Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	apply, known := a[kind]
	if !known {
		return nil, fmt.Errorf("no applier for %s", kind)
	}
	return apply(tx, payload)
}
