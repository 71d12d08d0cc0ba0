// Package server is the outside of a member: the gRPC services, the HTTP endpoints, the work that only the
// metasrv leader does, and the life of the process. It wires the domain packages into a node and maps their
// errors to gRPC. It holds no rule about catalogs, routes or nodes.
//
// One file holds one service. What all of them share stands apart: methods.go says who may answer which
// RPC, interceptor.go enforces it, read.go finds the state that a read is answered from, errors.go has the
// one table from errors to gRPC status.
package server
