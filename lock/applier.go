package lock

import (
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// commandVersion is the version that the commands of this package came with.
const commandVersion = 2

// NewApplier returns the applier of holders and claims.
func NewApplier() state.Applier {
	return state.NewApplier(
		state.On(storagepb.CommandKind_COMMAND_KIND_OPEN_HOLDER, openHolder).Since(commandVersion),
		state.On(storagepb.CommandKind_COMMAND_KIND_KEEP_HOLDER, keepHolder).Since(commandVersion),
		state.On(storagepb.CommandKind_COMMAND_KIND_CLOSE_HOLDER, closeHolder).Since(commandVersion),
		state.On(storagepb.CommandKind_COMMAND_KIND_CLAIM, claim).Since(commandVersion),
		state.On(storagepb.CommandKind_COMMAND_KIND_WITHDRAW, withdraw).Since(commandVersion),
		state.On(storagepb.CommandKind_COMMAND_KIND_PROCLAIM, proclaim).Since(commandVersion),
		state.On(storagepb.CommandKind_COMMAND_KIND_EXPIRE_HOLDERS, expireHolders).Since(commandVersion),
	)
}
