package catalog

import (
	"encoding/binary"
	"fmt"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Where the records lie. Names can't contain '/', see metasrv.ValidateName, and '0' follows '/'.
const (
	catalogPrefix = "catalog/"
	schemaPrefix  = "schema/"
	// TablePrefix stands before the id in the key of a table's record.
	TablePrefix = "table/"
	// namePrefix stands before the name of a table in state CREATING or PUBLIC; the value is the table's id.
	namePrefix = "table_name/"
	// pendingPrefix stands before the id of a table that is not PUBLIC. It spares leader duties the scan of
	// all tables.
	pendingPrefix = "table_pending/"
	sequenceKey   = "seq/table"
)

func catalogKey(name string) string { return catalogPrefix + name }

func schemaKey(catalog, schema string) string { return schemaPrefix + catalog + "/" + schema }

func tableKey(id metasrv.TableID) string { return state.IDKey(TablePrefix, uint64(id)) }

func nameKey(n metasrv.TableName) string {
	return namePrefix + n.Catalog + "/" + n.Schema + "/" + n.Table
}

func pendingKey(id metasrv.TableID) string { return state.IDKey(pendingPrefix, uint64(id)) }

// end returns the first key behind all keys that begin with prefix, which ends with '/'.
func end(prefix string) string { return prefix[:len(prefix)-1] + "0" }

func encodeID(id metasrv.TableID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func decodeID(key string, value []byte) (metasrv.TableID, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("%s holds %d bytes, not a table id", key, len(value))
	}
	return metasrv.TableID(binary.BigEndian.Uint64(value)), nil
}
