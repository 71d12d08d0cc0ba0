package state

import (
	"testing"

	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// Whoever waits gets the same, whether the result came as a message or encoded.
func TestResultIsDecodedOrTaken(t *testing.T) {
	for _, want := range []proto.Message{
		&storagepb.TableResult{Table: table(), Route: &storagepb.RouteRecord{TableId: 1024}},
		&storagepb.KvResult{Success: true, Deleted: 3, Prev: []*storagepb.KvPair{{Key: []byte("a")}}},
		&storagepb.KvResult{},
		(*storagepb.TableResult)(nil),
	} {
		for form, r := range map[string]Result{"encoded": {Payload: Encode(want)}, "message": {Message: want}} {
			got := want.ProtoReflect().New().Interface()
			if kv, ok := got.(*storagepb.KvResult); ok {
				kv.Deleted = 7 // is overwritten
			}
			if err := r.Decode(got); err != nil || want.ProtoReflect().IsValid() && !proto.Equal(got, want) {
				t.Errorf("%s: %v became %v, %v", form, want, got, err)
			}
		}
	}
	if err := (Result{Message: &storagepb.KvResult{}}).Decode(&storagepb.TableResult{}); err == nil {
		t.Error("a result of another kind was taken")
	}
}
