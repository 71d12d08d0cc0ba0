package client

import (
	"context"

	"google.golang.org/grpc"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// ClusterOf returns a stub for the Cluster service of one member, given by its gRPC address, leader or not:
// it is asked once, and nobody else is. Operators' tools compare what members say of themselves with it.
func (c *Client) ClusterOf(addr string) metasrvpb.ClusterClient {
	return metasrvpb.NewClusterClient(&memberConn{client: c, addr: addr})
}

// memberConn sends calls to one member.
type memberConn struct {
	client *Client
	addr   string
}

// Invoke implements grpc.ClientConnInterface. A ctx without a deadline gets one after Config.AttemptTimeout.
func (m *memberConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, done, err := m.client.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.client.cfg.AttemptTimeout)
		defer cancel()
	}
	cc, release, err := m.client.conns.use(m.addr)
	if err != nil {
		return err
	}
	defer release()
	if err := cc.Invoke(ctx, method, args, reply, opts...); err != nil {
		return newError(method, err, nil)
	}
	return nil
}

// NewStream implements grpc.ClientConnInterface.
func (m *memberConn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return m.client.openStream(ctx, m.addr, desc, method, opts)
}
