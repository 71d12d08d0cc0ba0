package client

import (
	"context"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// A metasrv leader that is paused, or behind a broken network, says nothing, while another one leads already. To wait until its
// stream counts as broken takes about as long as a lease. So the node asks other members sooner who leads, and goes there. A member
// that is only slow keeps its nodes: the others name it as the leader.

// doubtAfter is how many half intervals without a response it takes to ask others, doubtEvery how many lie between two questions.
const (
	doubtAfter = 3
	doubtEvery = 1
)

// elsewhereError ends the stream to a member that is silent while another one leads.
type elsewhereError struct{ leader string }

func (e *elsewhereError) Error() string {
	return "the member doesn't respond, and the metasrv leader is now " + e.leader
}

// heardNow notes a response.
func (s *heartbeatStream) heardNow() { s.heard.Store(int64(time.Since(s.task.began))) }

// silence returns for how long nothing has come.
func (s *heartbeatStream) silence() time.Duration {
	return time.Since(s.task.began) - time.Duration(s.heard.Load())
}

// doubt asks other members who leads while the stream's is silent, and ends the stream where that is another one.
func (s *heartbeatStream) doubt(ctx context.Context, end context.CancelCauseFunc) {
	timer := time.NewTimer(s.task.currentInterval() * doubtAfter / 2)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		half := s.task.currentInterval() / 2
		if due := doubtAfter*half - s.silence(); due > 0 {
			timer.Reset(due)
			continue
		}
		if leader := s.task.leaderByOthers(ctx, s.member, half); leader != "" && leader != s.member {
			s.task.logger.Info("the member doesn't respond, and another one leads", "member", s.member, "leader", leader)
			end(&elsewhereError{leader})
			return
		}
		timer.Reset(half)
	}
}

// leaderByOthers asks the next member in turn but one who leads; empty where it doesn't say so within limit.
func (t *HeartbeatTask) leaderByOthers(ctx context.Context, but string, limit time.Duration) string {
	member := t.client.members.rotate(but)
	if member == but {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cc, release, err := t.client.conns.use(member)
	if err != nil {
		return ""
	}
	defer release()
	answer, err := metasrvpb.NewHeartbeatClient(cc).AskLeader(ctx, &metasrvpb.AskLeaderRequest{
		Header: &metasrvpb.RequestHeader{MemberId: t.cfg.Peer.GetId(), ClusterId: t.ClusterID()},
	})
	if err != nil {
		return "" // as if it knew none
	}
	return answer.GetLeader().GetAddr()
}
