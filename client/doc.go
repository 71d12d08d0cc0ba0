// Package client is what frontends, datanodes and tools embed to talk to a metasrv cluster.
//
// # Calls
//
// A Client is made from the addresses of some members, one of which must be reachable when a call is made:
//
//	c, err := client.New(client.Config{Endpoints: []string{"10.0.0.1:3002", "10.0.0.2:3002"}})
//	defer c.Close()
//	answer, err := c.Router().Route(ctx, &metasrvpb.RouteRequest{TableNames: names})
//
// Its stubs send every call to the metasrv leader, which the client finds by asking: a member that does not
// lead names the one that does. A call goes on through lost connections, hung and restarted members, elections
// and overload until it succeeds, is refused for good, or its context ends (a context without a deadline gets
// Config.CallTimeout). A request whose header asks for a stale read goes to the members in turn.
//
// Writes are executed at most once, however often they are sent: the client names each by a request id of its
// session, which it opens with the first write and closes in Close. Whoever sets header.request_id takes that
// over. Store.Put, BatchPut and BatchDelete that don't ask for previous pairs are repeated without an id, for that
// changes nothing: see Once. The caller's messages are never modified.
//
// # Errors
//
// Errors are of type *Error. They are compared with the errors of the root package:
//
//	switch {
//	case errors.Is(err, metasrv.ErrTableNotFound): // refused; the cluster is fine
//	case errors.Is(err, metasrv.ErrOutcomeUnknown): // a write that may have been executed, or may yet be
//	case errors.Is(err, context.DeadlineExceeded): // no member could answer in time
//	}
//
// An error of a call that was tried more than once says what each member answered last. The gRPC status with
// its details is there for status.FromError.
//
// # Streams
//
// A watch is opened at the metasrv leader and again elsewhere until its first answer has arrived. After that an
// error ends it; the caller resumes from the last revision it has seen.
//
// # Locks and elections
//
// A Holder claims names and renews itself in the background until it is closed:
//
//	h, err := c.OpenHolder(ctx, client.HolderConfig{TTL: 10 * time.Second, Name: "compactor on node 7"})
//	defer h.Close(ctx)
//	l, err := h.Lock(ctx, "compaction/cpu") // waits its turn
//	… use l.FencingToken() with whatever the lock guards; stop when <-l.Lost()
//
// Campaign makes it a candidate, ObserveElection tells who is elected.
//
// # Nodes
//
// A HeartbeatTask keeps a datanode registered: it beats on one stream to whichever member leads, reports what
// the node collects, and hands instructions to the node one at a time. It returns only when its context ends
// or another process has taken the node's id.
//
// The rest of the package is for frontends: the cache of routes, the split of a batch of rows over regions, and
// the choice of the regions and nodes that a query needs.
//
// # Servers
//
// Connections are checked by keepalive pings every 10 s while calls are under way; servers must permit that
// (keepalive.EnforcementPolicy with a MinTime of 10 s or less).
package client
