package server

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Encoded routes are sent as they are, behind the header, and large ones are not copied: that was a fifth of the price of a
// lookup of a hundred tables.
func TestRoutesAreSentAsTheyAre(t *testing.T) {
	for _, size := range []int{0, 10, 100_000} {
		routes := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), make([]byte, size))
		resp := &metasrvpb.RouteResponse{Header: &metasrvpb.ResponseHeader{Revision: 7}}
		resp.ProtoReflect().SetUnknown(routes)
		want, err := proto.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // a message is as it was after it was encoded
			got, err := newCodec().Marshal(resp)
			if err != nil || !bytes.Equal(got.Materialize(), want) {
				t.Fatalf("%d bytes of routes are sent as %d, %v; want %d", size, got.Len(), err, len(want))
			}
			if last := got[len(got)-1].ReadOnlyData(); size > copied && &last[0] != &routes[0] {
				t.Error("large routes were copied")
			}
		}
	}
}
