package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// The early public protocol has the same messages under another package name, and tells errors in the header
// of a response with status OK.
const (
	nativePackage = "/metasrv.v1."
	earlyPackage  = "/greptime.v1.meta."
)

// nativeMethod returns the name that a method has in metasrv.v1, and whether it was called by its early name.
func nativeMethod(fullMethod string) (method string, early bool) {
	if name, ok := strings.CutPrefix(fullMethod, earlyPackage); ok {
		return nativePackage + name, true
	}
	return fullMethod, false
}

// refusalInHeader returns an empty response of a method that tells an error in its header.
func refusalInHeader(method string, s *status.Status, h *metasrvpb.ResponseHeader) (proto.Message, error) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		return nil, fmt.Errorf("find the response of %s: %w", method, err)
	}
	output := d.(protoreflect.MethodDescriptor).Output().FullName()
	t, err := protoregistry.GlobalTypes.FindMessageByName(output)
	if err != nil {
		return nil, fmt.Errorf("find the response of %s: %w", method, err)
	}
	h.Error = &metasrvpb.Error{Code: int32(s.Code()), ErrMsg: s.Message()} //nolint:gosec // codes are below 17
	resp := t.New().Interface()
	setHeader(resp, h)
	return resp, nil
}

// earlyServices are the RPCs that the early public protocol has, of those that exist here.
var earlyServices = map[string][]string{
	"Heartbeat": {"Heartbeat", "AskLeader"},
	"Router":    {"Create", "Route", "Delete"},
	"Store":     {"Range", "Put", "BatchGet", "BatchPut", "BatchDelete", "CompareAndPut", "DeleteRange", "MoveValue"},
	"Lock":      {"Lock", "Unlock"},
}

// registerEarly registers the services under their early public names.
func registerEarly(r grpc.ServiceRegistrar, s *services) {
	r.RegisterService(earlyDesc("Heartbeat", metasrvpb.Heartbeat_ServiceDesc), heartbeatService{services: s})
	r.RegisterService(earlyDesc("Router", metasrvpb.Router_ServiceDesc), routerService{services: s, early: true})
	r.RegisterService(earlyDesc("Lock", metasrvpb.Lock_ServiceDesc), lockService{services: s})
	r.RegisterService(earlyDesc("Store", metasrvpb.Store_ServiceDesc), storeService{services: s})
}

// earlyDesc returns a service's description under its early name, without RPCs that the protocol lacks.
func earlyDesc(name string, native grpc.ServiceDesc) *grpc.ServiceDesc {
	early := native
	early.ServiceName = strings.Trim(earlyPackage, "/") + name
	early.Methods, early.Streams = nil, nil
	known := func(rpc string) bool { return slices.Contains(earlyServices[name], rpc) }
	for _, m := range native.Methods {
		if known(m.MethodName) {
			early.Methods = append(early.Methods, grpc.MethodDesc{
				MethodName: m.MethodName, Handler: calledAs(earlyPackage+name+"/"+m.MethodName, m.Handler),
			})
		}
	}
	for _, stream := range native.Streams {
		if known(stream.StreamName) {
			early.Streams = append(early.Streams, stream)
		}
	}
	return &early
}

// calledAs makes interceptors see the name by which a method was called; generated handlers know their own only.
func calledAs(fullMethod string, handler grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		return handler(srv, ctx, dec, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			named := *info
			named.FullMethod = fullMethod
			return interceptor(ctx, req, &named, next)
		})
	}
}
