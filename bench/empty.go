package main

import (
	"context"
	"net"
	"os"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// emptyCommand is the argument with which this program is a gRPC server that does nothing.
const emptyCommand = "empty-server"

// emptyWorkers is as many as a member of metasrv has.
const emptyWorkers = 512

type emptyServer struct {
	healthpb.UnimplementedHealthServer
}

func (emptyServer) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func serveEmpty(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.NumStreamWorkers(emptyWorkers))
	healthpb.RegisterHealthServer(s, emptyServer{})
	return s.Serve(l)
}

// emptyTarget is the yardstick: what gRPC alone costs on this machine.
type emptyTarget struct {
	process *process
	addr    string
}

func newEmptyTarget(dir string) (*emptyTarget, error) {
	addrs, err := freeAddrs(1)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := start(dir, "empty", self, emptyCommand, addrs[0])
	if err != nil {
		return nil, err
	}
	return &emptyTarget{process: p, addr: addrs[0]}, nil
}

func (e *emptyTarget) load(ctx context.Context, l load) (*loadgen.Report, error) {
	return ownLoad(ctx, "empty", e.addr, l)
}
