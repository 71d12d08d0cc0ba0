package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv/client"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

// maxMessage is the largest message of a datanode, in bytes.
const maxMessage = 64 << 20

// attemptTimeout ends one unary call to a datanode, so that another attempt can follow.
const attemptTimeout = 5 * time.Second

// nodes keeps one connection a datanode.
type nodes struct {
	options []grpc.DialOption

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

func newNodes(options []grpc.DialOption) *nodes {
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	options = append(options,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
			},
			MinConnectTimeout: time.Second,
		}),
		// A datanode that hangs closes nothing: without a sign of life what is read from it ends.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: attemptTimeout}))
	return &nodes{options: options, conns: map[string]*grpc.ClientConn{}}
}

// get returns a stub for the datanode at an address.
func (n *nodes) get(addr string) (tsdbpb.DatanodeClient, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errors.New("the frontend is stopping")
	}
	conn, ok := n.conns[addr]
	if !ok {
		var err error
		if conn, err = grpc.NewClient(addr, n.options...); err != nil {
			return nil, fmt.Errorf("datanode at %s: %w", addr, err)
		}
		n.conns[addr] = conn
	}
	return tsdbpb.NewDatanodeClient(conn), nil
}

func (n *nodes) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	var errs []error
	for _, c := range n.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// isTransient reports whether the same request may succeed later.
func isTransient(err error) bool {
	if errors.Is(err, client.ErrRegionUnavailable) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}
