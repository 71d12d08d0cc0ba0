package server

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

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
			got, err := newCodec(nil).Marshal(resp)
			if err != nil || !bytes.Equal(got.Materialize(), want) {
				t.Fatalf("%d bytes of routes are sent as %d, %v; want %d", size, got.Len(), err, len(want))
			}
			if last := got[len(got)-1].ReadOnlyData(); size > copied && &last[0] != &routes[0] {
				t.Error("large routes were copied")
			}
		}
	}
}

// Puts are coded by hand: the bytes and the messages are protobuf's.
func TestPutsAreCodedAsProtobufDoes(t *testing.T) {
	number := rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64())
	short := rapid.SliceOfN(rapid.Byte(), 0, 300)
	rapid.Check(t, func(t *rapid.T) {
		header := &metasrvpb.ResponseHeader{
			ProtocolVersion: number.Draw(t, "protocol"), ClusterId: number.Draw(t, "cluster"), Revision: number.Draw(t, "revision"),
			ClusterIncarnation: number.Draw(t, "incarnation"), ClusterGeneration: number.Draw(t, "generation"),
			Member: rapid.StringN(0, 3, 80).Draw(t, "member"),
		}
		resp := &metasrvpb.PutResponse{Header: header}
		switch rapid.IntRange(0, 9).Draw(t, "more") {
		case 0:
			resp.PrevKv = &metasrvpb.KeyValue{Key: short.Draw(t, "key")}
		case 1:
			header.AgeMs = proto.Uint64(number.Draw(t, "age"))
		case 2:
			header.Error = &metasrvpb.Error{Code: 3}
		case 3:
			resp.Header = nil
		case 4:
			header.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
		case 5:
			resp.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
		}
		want, err := proto.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		got, err := newCodec(nil).Marshal(resp)
		if err != nil || !bytes.Equal(got.Materialize(), want) {
			t.Fatalf("%v is sent as %x, %v; want %x", resp, got.Materialize(), err, want)
		}

		// What clients send may have its fields in any order, more than once, and others.
		var sent []byte
		for range rapid.IntRange(0, 5).Draw(t, "fields") {
			switch field := protowire.Number(rapid.IntRange(1, 5).Draw(t, "field")); field {
			case 1:
				h := &metasrvpb.RequestHeader{ClusterId: number.Draw(t, "id")}
				b, err := proto.Marshal(h)
				if err != nil {
					t.Fatal(err)
				}
				sent = protowire.AppendBytes(protowire.AppendTag(sent, field, protowire.BytesType), b)
			case 2, 3, 5:
				sent = protowire.AppendBytes(protowire.AppendTag(sent, field, protowire.BytesType), short.Draw(t, "bytes"))
			case 4:
				sent = protowire.AppendVarint(protowire.AppendTag(sent, field, protowire.VarintType), number.Draw(t, "flag"))
			}
		}
		sent = sent[:len(sent)-min(len(sent), rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "cut"))]
		wanted, decoded := &metasrvpb.PutRequest{}, &metasrvpb.PutRequest{}
		wantErr := proto.Unmarshal(sent, wanted)
		received := bytes.Clone(sent)
		err = newCodec(nil).Unmarshal(mem.BufferSlice{mem.SliceBuffer(received)}, decoded)
		clear(received) // gRPC uses the memory again
		if (err == nil) != (wantErr == nil) || err == nil && !proto.Equal(decoded, wanted) {
			t.Fatalf("%x is taken for %v, %v; want %v, %v", sent, decoded, err, wanted, wantErr)
		}
	})
}
