package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Client sends calls to the metasrv leader and survives its changes. It is safe for concurrent use, and it is
// a grpc.ClientConnInterface: generated stubs work over it.
type Client struct {
	cfg      Config
	members  *members
	conns    *conns
	sessions *sessions
	lives    lives

	// base ends with Close; calls are cancelled by it.
	base   context.Context
	cancel context.CancelFunc

	mu     sync.Mutex // orders the start of calls and Close
	closed bool
	calls  sync.WaitGroup

	lastRefresh time.Time // under mu
}

var _ grpc.ClientConnInterface = (*Client)(nil)

var errClosed = status.Error(codes.Canceled, "client is closed")

// New returns a client. It does not wait for the network: a cluster that can't be reached shows at the first
// call. Errors are those of Config.Validate and of dial options that don't fit together.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("client config: %w", err)
	}
	cfg = cfg.withDefaults()
	c := &Client{cfg: cfg, members: newMembers(cfg)}
	c.conns = newConns(cfg, c.members.isKnown)
	c.sessions = newSessions(c.openSession)
	c.lives.logger, c.lives.changed = cfg.Logger, c.sessions.forget
	c.base, c.cancel = context.WithCancel(context.Background())
	_, release, err := c.conns.use(cfg.Endpoints[0])
	if err != nil {
		c.cancel()
		return nil, err
	}
	release()
	return c, nil
}

// Router returns a stub for the Router service.
func (c *Client) Router() metasrvpb.RouterClient { return metasrvpb.NewRouterClient(c) }

// Catalog returns a stub for the Catalog service.
func (c *Client) Catalog() metasrvpb.CatalogClient { return metasrvpb.NewCatalogClient(c) }

// Store returns a stub for the Store service.
func (c *Client) Store() metasrvpb.StoreClient { return metasrvpb.NewStoreClient(c) }

// Locks returns a stub for the Lock service. See OpenHolder for locks that are kept.
func (c *Client) Locks() metasrvpb.LockClient { return metasrvpb.NewLockClient(c) }

// Election returns a stub for the Election service. See OpenHolder for candidacies that are kept.
func (c *Client) Election() metasrvpb.ElectionClient { return metasrvpb.NewElectionClient(c) }

// Cluster returns a stub for the Cluster service, as the metasrv leader answers it where it is known.
func (c *Client) Cluster() metasrvpb.ClusterClient { return metasrvpb.NewClusterClient(c) }

// Maintenance returns a stub for the Maintenance service: members of the cluster, and copies of its state.
func (c *Client) Maintenance() metasrvpb.MaintenanceClient { return metasrvpb.NewMaintenanceClient(c) }

// Heartbeat returns a stub for the Heartbeat service. Nodes use HeartbeatTask.
func (c *Client) Heartbeat() metasrvpb.HeartbeatClient { return metasrvpb.NewHeartbeatClient(c) }

// Leader returns the address of the metasrv leader as far as the client has heard of it, else empty.
func (c *Client) Leader() string { return c.members.known() }

// closeSessionTimeout bounds what is spent on saying goodbye; a session that is not closed is kept until it expires.
const closeSessionTimeout = 500 * time.Millisecond

// Close ends all calls and streams, closes the session and the connections, and returns when everything has
// ended. Further calls fail with the code Canceled.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()

	c.cancel()
	c.calls.Wait()
	if s := c.sessions.current.Load(); s != nil {
		c.sayGoodbye(context.Background(), s)
	}
	return c.conns.close()
}

// closeSession closes a session that was left, in the background, unless the client is being closed.
func (c *Client) closeSession(s *session) {
	ctx, done, err := c.enter(context.Background())
	if err != nil {
		return
	}
	go func() {
		defer done()
		c.sayGoodbye(ctx, s)
	}()
}

// sayGoodbye closes a session. It does what it can: one that is not closed stays in the cluster until it expires.
func (c *Client) sayGoodbye(ctx context.Context, s *session) {
	ctx, cancel := context.WithTimeout(ctx, closeSessionTimeout)
	defer cancel()
	_ = c.run(ctx, &call{
		method:  metasrvpb.Cluster_CloseSession_FullMethodName,
		kind:    repeatable,
		request: &metasrvpb.CloseSessionRequest{Session: s.id},
		reply:   &metasrvpb.CloseSessionResponse{},
	})
}

// enter counts a call in. Its context ends with the given one, with done, and when the client is closed.
func (c *Client) enter(ctx context.Context) (_ context.Context, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, errClosed
	}
	c.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.base, func() { cancel(errClosed) })
	return ctx, sync.OnceFunc(func() {
		stop()
		cancel(nil)
		c.calls.Done()
	}), nil
}

// Invoke executes a unary RPC on the metasrv leader; a stale read on any member, a linearizable one where
// Config.ReadFrom says. It retries until the RPC succeeds, is refused for good, or ctx ends; a ctx without a deadline gets one
// after Config.CallTimeout. Writes get a request id, unless the caller set one, and are executed at most once;
// those of the Store that may be repeated without harm get none, see Once. args stays as it is. Errors are of type *Error.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	request, ok := args.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%s: request is a %T, not a protobuf message", method, args)
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.CallTimeout)
		defer cancel()
	}
	kind := methodKindOf(method, request, opts)
	k := &call{
		method:  method,
		kind:    kind,
		first:   c.firstAsked(method, kind, request),
		request: request,
		reply:   reply,
		opts:    opts,
	}
	if k.kind == write && headerOf(request).GetRequestId() == nil {
		return c.runOnce(ctx, k)
	}
	return c.run(ctx, k)
}

// NewStream opens a stream to the metasrv leader, or to any member if the first message's header asks for
// stale answers. A stream with one request, such as a watch, is opened again elsewhere until its first answer
// arrives; after that, and for other streams, an error ends it, and the next one goes where the error points.
func (c *Client) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if !desc.ClientStreams {
		return c.newWatchStream(ctx, desc, method, opts)
	}
	return c.newPlainStream(ctx, desc, method, opts)
}

// openSession opens a session of the cluster.
func (c *Client) openSession(ctx context.Context) (uint64, error) {
	reply := &metasrvpb.OpenSessionResponse{}
	err := c.run(ctx, &call{
		method:  metasrvpb.Cluster_OpenSession_FullMethodName,
		kind:    repeatable,
		request: &metasrvpb.OpenSessionRequest{},
		reply:   reply,
	})
	if err != nil {
		return 0, err
	}
	return reply.GetSession(), nil
}

// refreshInterval is the least time between two looks at the list of members.
const refreshInterval = 10 * time.Second

// refreshMembers learns the members of the cluster in the background. It is called after a call that had to
// search, so that the next search knows more than the configured endpoints.
func (c *Client) refreshMembers() {
	c.mu.Lock()
	due := !c.closed && time.Since(c.lastRefresh) >= refreshInterval
	if due {
		c.lastRefresh = time.Now()
		c.calls.Add(1)
	}
	c.mu.Unlock()
	if !due {
		return
	}
	go func() {
		defer c.calls.Done()
		ctx, cancel := context.WithTimeout(c.base, c.cfg.AttemptTimeout)
		defer cancel()
		reply := &metasrvpb.ListMembersResponse{}
		k := &call{
			method:  metasrvpb.Cluster_ListMembers_FullMethodName,
			kind:    read,
			request: &metasrvpb.ListMembersRequest{Header: &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE}},
			reply:   reply,
		}
		if _, err := c.attempt(ctx, c.members.leaderOrNext(), k); err != nil {
			c.cfg.Logger.Debug("members not listed", "error", err)
			return
		}
		var addrs []string
		for _, m := range reply.GetMembers() {
			addrs = append(addrs, m.GetGrpcAddr())
		}
		c.members.learn(addrs)
	}()
}
