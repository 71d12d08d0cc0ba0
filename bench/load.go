package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// loadCommand is the argument with which this program is a load on a server.
const loadCommand = "load"

// clientLoad is the load on one server, with the messages of its protocol.
type clientLoad struct {
	target, op, addr string
	clients, conns   int
	keys             uint64
	valueSize        int
	sequential       bool
	connections      []*grpc.ClientConn
}

func runLoad(ctx context.Context, args []string, out io.Writer) error {
	var l clientLoad
	var cfg loadgen.Config
	f := flag.NewFlagSet(loadCommand, flag.ContinueOnError)
	f.StringVar(&l.target, "target", "etcd", "etcd or empty")
	f.StringVar(&l.op, "op", "put", "put, range or empty")
	f.StringVar(&l.addr, "addr", "", "address of the server")
	f.IntVar(&l.clients, "clients", 64, "requests under way")
	f.IntVar(&l.conns, "conns", 0, "connections, 0: one for 32 clients, at most 8")
	f.Uint64Var(&l.keys, "keys", 200_000, "different keys")
	f.IntVar(&l.valueSize, "value-size", 256, "bytes of a value")
	f.BoolVar(&l.sequential, "sequential", false, "write the keys in turn")
	f.DurationVar(&cfg.Duration, "duration", 10*time.Second, "time that is measured")
	f.DurationVar(&cfg.Warmup, "warmup", time.Second, "load before it")
	f.Uint64Var(&cfg.Count, "count", 0, "requests after which it ends")
	f.Float64Var(&cfg.Rate, "rate", 0, "requests a second")
	if err := f.Parse(args); err != nil {
		return err
	}
	cfg.Clients = l.clients
	cfg.Reason = func(err error) string {
		if st, ok := status.FromError(err); ok {
			return st.Code().String() + ": " + st.Message()
		}
		return err.Error()
	}
	if err := l.connect(); err != nil {
		return err
	}
	defer l.close()
	operation, err := l.operation()
	if err != nil {
		return err
	}
	res, err := loadgen.Run(ctx, cfg, operation)
	if err != nil {
		return err
	}
	return res.Report(l.op, map[string]any{"target": l.target, "clients": l.clients, "conns": l.conns}, "", 1).WriteJSON(out)
}

func (l *clientLoad) connect() error {
	if l.conns == 0 {
		l.conns = loadgen.DefaultConns(l.clients)
	}
	for range l.conns {
		conn, err := grpc.NewClient("passthrough:///"+l.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			return err
		}
		l.connections = append(l.connections, conn)
	}
	return nil
}

func (l *clientLoad) close() {
	for _, conn := range l.connections {
		conn.Close()
	}
}

// operation returns what a client does: the messages differ from those of metactl bench, the rest is the same.
func (l *clientLoad) operation() (func(int) loadgen.Op, error) {
	names := loadgen.NewKeys("metactl-bench/", l.keys)
	first := names.Append(nil, 0)
	method, encoded, least := "", []byte(nil), 0
	var err error
	switch {
	case l.target == "etcd" && l.op == "put":
		method = "/etcdserverpb.KV/Put"
		encoded, err = (&pb.PutRequest{Key: first, Value: loadgen.RandomValue(l.valueSize)}).Marshal()
	case l.target == "etcd" && l.op == "range":
		method, least = "/etcdserverpb.KV/Range", l.valueSize
		encoded, err = (&pb.RangeRequest{Key: first}).Marshal()
	case l.target == "empty":
		method = healthpb.Health_Check_FullMethodName
		encoded, err = proto.Marshal(&healthpb.HealthCheckRequest{Service: string(first)})
	default:
		err = fmt.Errorf("no load %s on %s", l.op, l.target)
	}
	if err != nil {
		return nil, err
	}
	template, err := loadgen.NewTemplate(encoded, first)
	if err != nil {
		return nil, err
	}
	return func(client int) loadgen.Op {
		random := rand.New(rand.NewPCG(rand.Uint64(), uint64(client)))
		conn := l.connections[client%len(l.connections)]
		var key []byte
		var answer loadgen.Answer
		return func(ctx context.Context, n uint64) error {
			if !l.sequential {
				n = random.Uint64()
			}
			key = names.Append(key[:0], n%l.keys)
			if err := loadgen.Call(ctx, conn, method, template.With(key), &answer); err != nil {
				return err
			}
			if answer.Size < least {
				return errMissingKey
			}
			return nil
		}
	}, nil
}

var errMissingKey = errors.New("the key is not there")
