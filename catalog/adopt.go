package catalog

import (
	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// By how much numbers rise in a state that may lack what was acknowledged. Table ids have 32 bits, so this can be done
// 200 times.
const (
	adoptedTableIDs       = 1 << 24
	adoptedSchemaVersions = 1 << 20
)

// Adopt raises the ids of tables and the versions of their schemas beyond what can have been given out since the state
// was copied.
func Adopt(tx state.Tx) error {
	state.Raise(tx, sequenceKey, uint64(metasrv.FirstTableID), adoptedTableIDs)
	for key, value := range tx.Ascend(TablePrefix, end(TablePrefix)) {
		table := &storagepb.TableRecord{}
		if err := decode(key, value, table); err != nil {
			return err
		}
		table.SchemaVersion += adoptedSchemaVersions
		tx.Put(key, state.Encode(table))
	}
	return nil
}
