package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Member is one of the cluster as clients reach it.
type Member struct {
	ID   string
	Conn grpc.ClientConnInterface
	// Life names the present process of the member.
	Life func() string
}

// Config says who makes which operations.
type Config struct {
	Seed    uint64
	History *linear.History
	// Client follows the metasrv leader and retries.
	Client  *client.Client
	Members []Member
	// Workers make operations one after the other, each with pauses of up to Pause. An operation is given up after
	// Timeout, one request to a member after Attempt.
	Workers          int
	Pause            time.Duration
	Timeout, Attempt time.Duration
	// Groups of keys are worked on. None may have been used before the history.
	Groups []string
	// Tables are names of tables, empty where there are no Datanodes; TableWorkers work on them.
	Tables       []string
	TableWorkers int
	// SessionTTL is how long the cluster keeps a session that nobody uses.
	SessionTTL time.Duration
	// Incarnation returns that of a datanode.
	Incarnation func(node uint64) uint64
}

// Run works until ctx ends. It returns when the last operation has ended.
func Run(ctx context.Context, cfg *Config) {
	var workers sync.WaitGroup
	for i := range cfg.Workers {
		w := cfg.worker(i)
		workers.Go(func() { w.run(ctx, w.storeOperation) })
	}
	for i := range cfg.TableWorkers {
		w := cfg.worker(cfg.Workers + i)
		workers.Go(func() { w.run(ctx, w.tableOperation) })
	}
	workers.Wait()
}

// worker is one client: it makes one operation at a time.
type worker struct {
	*Config
	id     int
	random *rand.Rand
	// values counts those that were written: each is written once.
	values int
	// seen is the greatest revision in an answer, known the values last seen.
	seen  uint64
	known map[string]linear.KVState
	// session and sequence are of the requests that the worker retries itself.
	session, sequence uint64
	// used is a time before the last use of the session that was answered.
	used time.Time
	// creations are those that the worker has not committed yet.
	creations []creation
}

func (c *Config) worker(id int) *worker {
	return &worker{
		Config: c, id: id, random: rand.New(rand.NewPCG(c.Seed, uint64(id))), //nolint:gosec // a seed that can be repeated
		known: map[string]linear.KVState{},
	}
}

func (w *worker) run(ctx context.Context, operation func(context.Context)) {
	for ctx.Err() == nil {
		// The operation under way when the work ends goes on until it is answered or given up.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.Timeout)
		operation(bounded)
		cancel()
		select {
		case <-time.After(time.Duration(w.random.Int64N(int64(w.Pause)))):
		case <-ctx.Done():
		}
	}
}

func (w *worker) value() string {
	w.values++
	return fmt.Sprintf("%d.%d", w.id, w.values)
}

func (w *worker) member() Member { return w.Members[w.random.IntN(len(w.Members))] }

// chance is true in so many of a hundred cases.
func (w *worker) chance(percent int) bool { return w.percent() < percent }

// percent returns a number below 100 by which one of some possibilities is chosen.
func (w *worker) percent() int { return w.random.IntN(100) }

// storeOperation makes one operation on a group of keys, or opens a session.
func (w *worker) storeOperation(ctx context.Context) {
	group := w.Groups[w.random.IntN(len(w.Groups))]
	switch {
	case w.chance(3):
		w.openSession(ctx)
	case w.chance(45):
		w.read(ctx, group)
	default:
		w.write(ctx, w.change(group))
	}
}

func (w *worker) openSession(ctx context.Context) {
	p, began := w.History.Begin(w.id, linear.IDCall{Sequence: "session"}), time.Now()
	answer, err := w.Client.Cluster().OpenSession(ctx, &metasrvpb.OpenSessionRequest{})
	if err != nil {
		return
	}
	p.End(linear.IDAnswer{ID: answer.GetSession()}, nil)
	w.session, w.sequence, w.used = answer.GetSession(), 0, began
}

// read reads some of a group, at one of the levels.
func (w *worker) read(ctx context.Context, group string) {
	call := w.question(group)
	switch {
	case w.chance(25):
		w.ask(ctx, call, w.Client, nil, &metasrvpb.RequestHeader{})
	case w.chance(60):
		m := w.member()
		w.ask(ctx, call, m.Conn, m.Life, &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE})
	case w.chance(50):
		m := w.member()
		w.ask(ctx, call, m.Conn, m.Life, &metasrvpb.RequestHeader{MinRevision: w.seen})
	default:
		m := w.member()
		w.ask(ctx, call, m.Conn, m.Life, &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE})
	}
}

// ask makes a read. One that fails says nothing.
func (w *worker) ask(ctx context.Context, call linear.KVCall, conn grpc.ClientConnInterface, life func() string, header *metasrvpb.RequestHeader) {
	if conn != grpc.ClientConnInterface(w.Client) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.Attempt)
		defer cancel()
	}
	before := lifeOf(life)
	p := w.History.Begin(w.id, call)
	answer, revision, err := send(ctx, conn, &call, header)
	if err != nil {
		if client.Reason(err) == metasrv.ErrInvalidArgument.Reason {
			panic(err) // no request of the workload is
		}
		return
	}
	p.End(answer, func(op *linear.Op) {
		op.Revision, op.MinRevision = revision, header.GetMinRevision()
		op.Stale = header.GetReadLevel() == metasrvpb.ReadLevel_READ_LEVEL_STALE ||
			header.GetReadLevel() == metasrvpb.ReadLevel_READ_LEVEL_UNSPECIFIED && header.GetMinRevision() > 0
		if before == lifeOf(life) {
			op.Member = before
		}
	})
	w.learn(&call, &answer, revision)
}

func lifeOf(life func() string) string {
	if life == nil {
		return ""
	}
	return life()
}

// learn keeps what an answer tells for later operations.
func (w *worker) learn(call *linear.KVCall, answer *linear.KVAnswer, revision uint64) {
	w.seen = max(w.seen, revision)
	w.known[call.Group] = call.Known(w.known[call.Group], *answer)
}

// write makes a change: by the client library, by one request without an id, or by requests under one id that the
// worker sends to any member until one answers.
func (w *worker) write(ctx context.Context, call linear.KVCall) {
	var answer linear.KVAnswer
	var revision uint64
	p := w.History.Begin(w.id, call)
	var err error
	switch {
	case w.chance(40):
		answer, revision, err = send(ctx, w.Client, &call, &metasrvpb.RequestHeader{})
		err = libraryError(err)
	case w.session == 0 || w.chance(40):
		attempt, cancel := context.WithTimeout(ctx, w.Attempt)
		answer, revision, err = send(attempt, w.member().Conn, &call, &metasrvpb.RequestHeader{})
		cancel()
	default:
		answer, revision, err = w.sendUnderID(ctx, &call)
	}
	switch {
	case err == nil:
		p.End(answer, func(op *linear.Op) { op.Revision = revision })
		w.learn(&call, &answer, revision)
	case !refused(err):
		p.Unknown()
	}
}

// sendUnderID sends one request to one member after the other, under the same id, until the answer is known.
func (w *worker) sendUnderID(ctx context.Context, call *linear.KVCall) (linear.KVAnswer, uint64, error) {
	w.sequence++
	header := &metasrvpb.RequestHeader{RequestId: &metasrvpb.RequestId{Session: w.session, Sequence: w.sequence, Acknowledged: w.sequence - 1}}
	unknown, began := false, time.Now()
	for {
		// A short time for each, so that requests that were slow are still under way when they are repeated.
		attempt, cancel := context.WithTimeout(ctx, w.Attempt)
		answer, revision, err := send(attempt, w.member().Conn, call, header)
		cancel()
		switch {
		case err == nil:
			w.used = began
			return answer, revision, nil
		case client.Reason(err) == metasrv.ErrSessionExpired.Reason:
			w.History.Begin(w.id, linear.Expiry{Session: w.session, Idle: time.Since(w.used), TTL: w.SessionTTL}).End(struct{}{}, nil)
			w.session = 0
			if unknown {
				return answer, 0, errUnknown
			}
			return answer, 0, err
		}
		unknown = unknown || !refused(err)
		select {
		case <-time.After(w.Pause / 2):
		case <-ctx.Done():
			if unknown {
				return answer, 0, errUnknown
			}
			return answer, 0, err
		}
	}
}
