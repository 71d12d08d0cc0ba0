package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// maxPatience is how often the time to wait for a member's first response doubles.
const maxPatience = 3

// wakeGap is the share of an interval that lies between any two beats.
const wakeGap = 20

var errSilent = status.Error(codes.Unavailable, "the member doesn't respond")

// heartbeatStream is one stream of a HeartbeatTask.
type heartbeatStream struct {
	task   *HeartbeatTask
	worker *instructionWorker
	member string
	stream metasrvpb.Heartbeat_HeartbeatClient
	// watchdog breaks the stream when no response comes.
	watchdog *time.Timer
	// retimed says that the interval changed.
	retimed chan struct{}

	// digests: metasrv answers with digests, so it understands what has changed only.
	digests atomic.Bool
	// fullWanted: metasrv asks for a full report.
	fullWanted atomic.Bool
	// heard is when the last response came, or the stream began, since the task did.
	heard atomic.Int64

	// Of the sending goroutine.
	sequence uint64
	lastBeat time.Time
	deltas   deltas

	// tickets are those of the requests from the last one on that was answered.
	ticketsMu sync.Mutex
	tickets   []ticket
	// groupTickets are those of the same requests, by their sequences.
	groupTickets map[uint64]groupTicket

	// Of the receiving goroutine, read when it has ended.
	answered bool
}

// beatAt beats at one member until the stream breaks or ctx ends. answered reports whether the member
// responded, which only the metasrv leader does.
func (t *HeartbeatTask) beatAt(ctx context.Context, w *walk, worker *instructionWorker) (answered bool, err error) {
	var doubting sync.WaitGroup
	defer doubting.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Until the first response the patience is that of other calls.
	patience := t.client.cfg.AttemptTimeout << min(w.failures, maxPatience)
	watchdog := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer watchdog.Stop()
	defer func() {
		cause := context.Cause(ctx)
		if _, elsewhere := errors.AsType[*elsewhereError](cause); elsewhere || errors.Is(cause, errSilent) {
			err = cause
		}
	}()
	s := &heartbeatStream{
		task:     t,
		worker:   worker,
		member:   w.target,
		watchdog: watchdog,
		retimed:  make(chan struct{}, 1),
	}
	s.heardNow()
	doubting.Go(func() { s.doubt(ctx, cancel) })

	cc, release, err := t.client.conns.use(w.target)
	if err != nil {
		return false, err
	}
	defer release()
	s.stream, err = metasrvpb.NewHeartbeatClient(cc).Heartbeat(ctx)
	if err != nil {
		return false, err
	}
	ended := make(chan struct{})
	var receiving sync.WaitGroup
	var receiveErr error
	receiving.Go(func() {
		receiveErr = s.receive()
		close(ended)
	})
	sendErr := s.send(ctx, ended)
	if !errors.Is(sendErr, io.EOF) {
		cancel(sendErr)
	}
	receiving.Wait()
	// Why the stream ended is what its receiving side says, unless the sending side ended it.
	if sendErr != nil && !errors.Is(sendErr, io.EOF) {
		return s.answered, sendErr
	}
	return s.answered, receiveErr
}

// send beats until the receiving side has ended (nil, io.EOF), sending fails, or ctx ends.
func (s *heartbeatStream) send(ctx context.Context, ended <-chan struct{}) error {
	for {
		if err := s.beat(ctx); err != nil {
			return err
		}
		ok, err := s.waitForBeat(ctx, ended)
		if !ok {
			return err
		}
	}
}

// waitForBeat waits for the time of the next beat. It returns false when the stream has ended.
func (s *heartbeatStream) waitForBeat(ctx context.Context, ended <-chan struct{}) (bool, error) {
	share := s.share()
	pause := func() time.Duration { return time.Duration(share * float64(s.task.currentInterval())) }
	due := time.NewTimer(time.Until(s.lastBeat.Add(pause())))
	defer due.Stop()
	woken := false
	for {
		select {
		case <-ended:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-due.C:
			return true, nil
		case <-s.retimed:
			if !woken {
				due.Reset(time.Until(s.lastBeat.Add(pause())))
			}
		case <-s.task.wake:
			woken = true
			// A gap, so that an instruction that is never done can't turn into a stream of beats.
			due.Reset(time.Until(s.lastBeat.Add(s.task.currentInterval() / wakeGap)))
		}
	}
}

// share returns which part of an interval lies before the next beat. Before the second one of a stream it is any: when the metasrv
// leader changes, the streams of all nodes begin at the same moment, and would all beat at the same moment from then on.
func (s *heartbeatStream) share() float64 {
	if s.sequence > 1 {
		return 1
	}
	return max(rand.Float64(), 1.0/wakeGap) //nolint:gosec // spreads load, guards nothing
}

// beat sends one request.
func (s *heartbeatStream) beat(ctx context.Context) error {
	t := s.task
	now := t.nowMillis()
	report, collectErr := t.cfg.Collect(ctx)
	if collectErr != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t.logger.Warn("heartbeat report not collected", "error", collectErr)
	}
	s.sequence++
	s.lastBeat = time.Now()
	request := &metasrvpb.HeartbeatRequest{
		Header:   &metasrvpb.RequestHeader{MemberId: t.cfg.Peer.GetId()},
		Peer:     t.cfg.Peer,
		Sequence: s.sequence,
	}
	if s.sequence == 1 {
		request.Node = t.cfg.NodeInfo
	}
	t.mu.Lock()
	request.Header.ClusterId = t.cluster
	request.Incarnation = t.incarnation
	if collectErr == nil {
		request.IsLeader = report.IsLeader
		request.ReplicaStats = report.ReplicaStats
		s.list(request, report, now)
		s.reportGroup(request, report)
	}
	t.askInSync(s, request)
	t.ledger.sent(request)
	t.mu.Unlock()
	if collectErr == nil {
		s.addTicket(request, report.RegionStats)
	}
	return s.stream.Send(request)
}

// list puts the node's replicas into a request: all, those that changed, or their digest.
func (s *heartbeatStream) list(request *metasrvpb.HeartbeatRequest, report HeartbeatReport, now uint64) {
	t := s.task
	wanted := s.fullWanted.Swap(false)
	if !wanted && t.digests && s.deltas.unlist(request, report.RegionStats) {
		t.ledger.postpone(report)
		return
	}
	full := wanted || !s.digests.Load() || s.deltas.sent == nil
	s.deltas.fill(request, report.RegionStats, t.ledger.report(request, report, now), full)
}

// receive handles responses until the stream ends.
func (s *heartbeatStream) receive() error {
	for {
		response, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			// A member ends streams with a status; one that just ends is going away.
			return status.Error(codes.Unavailable, "the member ended the stream")
		}
		if err != nil {
			return err
		}
		learned, err := s.task.checkCluster(s.member, response.GetHeader().GetClusterId())
		if err != nil {
			return err
		}
		// What a member of an earlier life asks for, such as to drop a replica, must not be done.
		if err := s.task.client.lives.observe(s.member, response); err != nil {
			return err
		}
		if !s.answered {
			s.answered = true
			s.task.outage.over(s.member)
			s.task.client.members.lead(s.member)
		}
		s.handle(response, learned)
		s.heardNow()
		s.watchdog.Reset(silentIntervals * s.task.currentInterval())
	}
}

// handle takes in one response; learned says that it named the node's cluster.
func (s *heartbeatStream) handle(response *metasrvpb.HeartbeatResponse, learned bool) {
	t := s.task
	t.mu.Lock()
	t.ledger.delivered(response.GetSequence())
	t.digests = response.Digest != nil
	registered := response.GetIncarnation() != 0 && (learned || response.GetIncarnation() != t.incarnation)
	if registered {
		t.incarnation = response.GetIncarnation()
	}
	interval := upToAnHour(response.GetHeartbeatIntervalMs())
	retimed := interval > 0 && interval != t.interval
	if retimed {
		t.interval = interval
	}
	t.mu.Unlock()

	if retimed {
		select {
		case s.retimed <- struct{}{}:
		default:
		}
	}
	if registered {
		t.logger.Info("node registered", "member", s.member, "incarnation", response.GetIncarnation(), "cluster_id", t.ClusterID())
		if t.cfg.OnRegistered != nil {
			t.cfg.OnRegistered(response.GetIncarnation())
		}
	}
	if response.Digest != nil {
		s.digests.Store(true)
	}
	if response.GetFullReportWanted() {
		s.fullWanted.Store(true)
		t.Beat()
	}
	for _, payload := range response.GetPayload() {
		s.worker.offer(payload)
	}
	s.takeLease(response)
	s.takeGroup(response)
	t.takeInSync(s, response)
}
