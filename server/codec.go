package server

import (
	"context"

	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/heartbeat"
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
type codec struct {
	encoding.CodecV2
	// turns are for the decoding of heartbeats with many replicas.
	turns *heartbeat.Turns
}

func newCodec(turns *heartbeat.Turns) codec {
	return codec{encoding.GetCodecV2(encodingproto.Name), turns}
}

// largeBeat is the size in bytes from which on the decoding of a heartbeat is work, as its judgement is.
const largeBeat = 4 << 10

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *encoded:
		setHeader(m.Message, m.header)
		return parts(m.Message, m.shared)
	case *metasrvpb.RouteResponse:
		if routes := m.ProtoReflect().GetUnknown(); len(routes) > copied {
			m.ProtoReflect().SetUnknown(nil)
			defer m.ProtoReflect().SetUnknown(routes)
			return parts(m, routes)
		}
	case *metasrvpb.PutResponse:
		if b, ok := encodePut(m); ok {
			return mem.BufferSlice{mem.SliceBuffer(b)}, nil
		}
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, put := v.(*metasrvpb.PutRequest); put && len(data) == 1 {
		if decodePut(data[0].ReadOnlyData(), m) {
			return nil
		}
		m.Reset()
	}
	if _, beat := v.(*metasrvpb.HeartbeatRequest); beat && data.Len() >= largeBeat {
		if err := c.turns.Take(context.Background()); err != nil { // who is before it only computes
			return err
		}
		defer c.turns.Give()
	}
	return c.CodecV2.Unmarshal(data, v)
}

// copied is the size up to which it costs less to copy encoded routes than to send them as a part of their own.
const copied = 4 << 10

// parts returns the encoding of a message and what is encoded already behind it.
func parts(m proto.Message, rest []byte) (mem.BufferSlice, error) {
	head, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(rest)}, nil
}
