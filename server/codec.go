package server

import (
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// encoded is a response whose parts are encoded already. To put encodings behind each other merges the messages, so a
// header of its own can stand before what many responses share.
type encoded struct {
	// Message is of the response's type and has nothing but, once it is sent, the header.
	proto.Message
	header *metasrvpb.ResponseHeader
	// shared is not modified by anyone.
	shared []byte
}

// GetHeader lets the interceptor fill the header.
func (e *encoded) GetHeader() *metasrvpb.ResponseHeader { return e.header }

// codec is gRPC's codec for protobuf, which sends responses that are encoded already as they are.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(encodingproto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	e, ok := v.(*encoded)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	setHeader(e.Message, e.header)
	head, err := proto.Marshal(e.Message)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(e.shared)}, nil
}
