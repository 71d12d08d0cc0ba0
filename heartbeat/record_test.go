package heartbeat

import (
	"testing"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func TestFieldsOfStoredRecords(t *testing.T) {
	value := state.Encode(&storagepb.NodeRecord{
		Peer: &metasrvpb.Peer{Id: 7, Addr: "here:1"}, Info: &metasrvpb.NodeInfo{Labels: map[string]string{"zone": "z"}},
		Incarnation: 9, Legacy: true, RegisteredAtMs: 5,
	})
	if addr := Address(value); addr != "here:1" {
		t.Errorf("address %q", addr)
	}
	if incarnation, _ := state.Field(value, recordIncarnationField); incarnation != 9 {
		t.Errorf("incarnation %d", incarnation)
	}
	if addr := Address(nil); addr != "" {
		t.Errorf("address %q of no record", addr)
	}
}
