package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Which members a measurement asks.
const (
	membersLeader    = "leader"
	membersFollowers = "followers"
	membersAll       = "all"
)

func checkMembers(which string) error {
	if !slices.Contains([]string{membersLeader, membersFollowers, membersAll}, which) {
		return usagef("--members is %q; it can be leader, followers or all", which)
	}
	return nil
}

// links are the connections of a measurement. The client library would choose the member and prepare retries anew for
// each call; here that happens only when a call failed.
type links struct {
	endpoints []string
	which     string
	conns     int
	timeout   time.Duration

	ctx     context.Context //nolint:containedctx // that of the measurement
	stop    context.CancelFunc
	helpers sync.WaitGroup
	current atomic.Pointer[link]
	// searching is held by the one who looks for the members anew.
	searching sync.Mutex

	// started and answered are compared by the watch: a member that hangs answers nothing.
	started, answered atomic.Uint64
}

// link is the connections to the members that were asked from one search to the next.
type link struct {
	names []string
	conns []*grpc.ClientConn
	ctx   context.Context //nolint:containedctx // ends with the link: calls that hang are given up
	end   context.CancelFunc

	mu sync.Mutex
	// calls is how many are under way. replaced: there will be no others, and idle is closed when the last one has ended.
	calls    int
	replaced bool
	idle     chan struct{}
}

// enter counts a call, false where the link was replaced.
func (k *link) enter() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.replaced {
		return false
	}
	k.calls++
	return true
}

func (k *link) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.calls--; k.replaced && k.calls == 0 {
		close(k.idle)
	}
}

// replace returns a channel that is closed when no call is under way any more.
func (k *link) replace() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.replaced = true; k.calls == 0 {
		close(k.idle)
	}
	return k.idle
}

// Pauses of a search, and of a client whose request was refused.
const (
	searchPause  = 20 * time.Millisecond
	searchAsk    = 500 * time.Millisecond
	refusedPause = 10 * time.Millisecond
)

// openLinks finds the members and connects to them, within timeout.
func openLinks(ctx context.Context, endpoints []string, o *benchOptions, timeout time.Duration) (*links, error) {
	l := &links{endpoints: endpoints, which: o.members, conns: o.conns, timeout: timeout}
	l.ctx, l.stop = context.WithCancel(ctx)
	first, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := l.search(first); err != nil {
		l.stop()
		return nil, err
	}
	l.helpers.Go(l.watchAnswers)
	return l, nil
}

func (l *links) close() {
	l.stop()
	l.helpers.Wait()
	l.current.Load().close()
}

// names returns the members that are asked.
func (l *links) names() []string { return l.current.Load().names }

// call sends one request of a client.
func (l *links) call(client int, method string, request []byte, answer *loadgen.Answer) error {
	k := l.enter()
	err := loadgen.Call(k.ctx, k.conns[client%len(k.conns)], method, request, answer)
	l.leave(k)
	if err != nil {
		l.failed(k, err)
	}
	return err
}

// conn returns a client's connection for calls by a stub, of which each must be told to done.
func (l *links) conn(client int) (conn *grpc.ClientConn, ctx context.Context, done func(error)) {
	k := l.enter()
	return k.conns[client%len(k.conns)], k.ctx, func(err error) {
		l.leave(k)
		if err != nil {
			l.failed(k, err)
		}
	}
}

// enter begins a call.
func (l *links) enter() *link {
	for {
		if k := l.current.Load(); k.enter() {
			l.started.Add(1)
			return k
		}
	}
}

func (l *links) leave(k *link) {
	l.answered.Add(1)
	k.leave()
}

// failed finds the members anew where the error says that they changed, and slows the client down.
func (l *links) failed(k *link, err error) {
	// Who asks followers too is refused for other reasons than that they changed.
	changed := l.which == membersLeader && slices.Contains(ofTheCluster, client.Reason(err))
	if !changed && !isConnectionError(err) {
		pauseFor(l.ctx, refusedPause)
		return
	}
	l.searching.Lock()
	defer l.searching.Unlock()
	if l.current.Load() != k {
		return
	}
	// It fails only when the measurement is over.
	_ = l.search(l.ctx)
}

// catchUp waits until all members that are asked have what was written so far: stale reads must find it.
func (l *links) catchUp(ctx context.Context, c *client.Client) error {
	now, err := c.Store().Range(ctx, &metasrvpb.RangeRequest{Key: []byte{0}, KeysOnly: true})
	if err != nil {
		return err
	}
	h := &metasrvpb.RequestHeader{
		ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE, MinRevision: now.GetHeader().GetRevision(),
	}
	for _, conn := range l.current.Load().conns {
		if _, err := metasrvpb.NewStoreClient(conn).Range(ctx, &metasrvpb.RangeRequest{Header: h, Key: []byte{0}, KeysOnly: true}); err != nil {
			return err
		}
	}
	return nil
}

func isConnectionError(err error) bool {
	return client.Reason(err) == "" && slices.Contains([]codes.Code{codes.Unavailable, codes.Canceled, codes.DeadlineExceeded}, status.Code(err))
}

// search asks the members until those that are wanted are found, and connects to them.
func (l *links) search(ctx context.Context) error {
	for {
		asking, cancel := context.WithTimeout(ctx, searchAsk)
		answers := askCluster(asking, l.endpoints)
		cancel()
		if wanted := l.wanted(answers); len(wanted) > 0 {
			return l.connect(wanted)
		}
		if !pauseFor(ctx, searchPause) {
			return metasrv.ErrNotLeader.With("no metasrv leader that is ready was found")
		}
	}
}

// wanted returns the answers of those members that are to be asked, empty where they are not all known.
func (l *links) wanted(answers []answer) []answer {
	leader := leaderOf(answers)
	if leader == nil || !leader.status.GetLeaderReady() {
		return nil
	}
	switch l.which {
	case membersLeader:
		return []answer{*leader}
	case membersFollowers:
		return slices.DeleteFunc(slices.Clone(answers), func(a answer) bool { return a.err != nil || a.id == leader.id })
	}
	return slices.DeleteFunc(slices.Clone(answers), func(a answer) bool { return a.err != nil })
}

func (l *links) connect(members []answer) error {
	k := &link{idle: make(chan struct{})}
	for range l.conns {
		for _, m := range members {
			conn, err := grpc.NewClient("passthrough:///"+m.endpoint,
				grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBenchAnswer)))
			if err != nil {
				k.close()
				return err
			}
			k.conns = append(k.conns, conn)
		}
	}
	for _, m := range members {
		k.names = append(k.names, m.id)
	}
	k.ctx, k.end = context.WithCancel(l.ctx)
	if old := l.current.Swap(k); old != nil {
		l.helpers.Go(func() { l.retire(old) })
	}
	return nil
}

// retire closes a link that was replaced when the calls under way have been answered: a member that leads no longer answers
// them, and to break them off would make failures that are not the cluster's. Those that hang are given up.
func (l *links) retire(k *link) {
	timer := time.NewTimer(l.timeout)
	defer timer.Stop()
	select {
	case <-k.replace():
	case <-timer.C:
	case <-l.ctx.Done():
	}
	k.close()
}

// maxBenchAnswer is as large as a member sends them.
const maxBenchAnswer = 256 << 20

func (k *link) close() {
	if k.end != nil {
		k.end()
	}
	for _, conn := range k.conns {
		conn.Close()
	}
}

// watchAnswers gives up the calls that are under way when none was answered for the time allowed.
func (l *links) watchAnswers() {
	ticker := time.NewTicker(l.timeout / 4)
	defer ticker.Stop()
	last, since := uint64(0), time.Now()
	for {
		select {
		case <-l.ctx.Done():
			return
		case now := <-ticker.C:
			answered := l.answered.Load()
			if answered != last || l.started.Load() == answered {
				last, since = answered, now
				continue
			}
			if now.Sub(since) >= l.timeout {
				since = now
				l.current.Load().end()
			}
		}
	}
}

// pauseFor returns false where ctx ended first.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
