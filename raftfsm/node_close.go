package raftfsm

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// Close ends the member: it hands the leadership to another one if it has it, writes the image and closes its
// files. ctx bounds the hand-over only.
func (n *Node) Close(ctx context.Context) error {
	n.closeOnce.Do(func() {
		n.transferLeadership(ctx)
		n.stopping.Store(true)
		n.cancel()
		n.closeErr = n.release()
	})
	return n.closeErr
}

// transferLeadership makes another voter the metasrv leader, so that the cluster need not wait for an election.
func (n *Node) transferLeadership(ctx context.Context) {
	if ctx.Err() != nil || n.Err() != nil || n.raft.State() != raft.Leader || len(n.voters()) < 2 {
		return
	}
	if err := n.awaitFuture(ctx, n.raft.LeadershipTransfer()); err != nil {
		n.log.Info("the leadership was not handed over, the other members will elect", "error", err)
	}
}

// leaveWhenFailed breaks all connections to the other members once this one has failed: heartbeats that it goes on
// sending until the process ends would keep the others from electing.
func (n *Node) leaveWhenFailed() {
	select {
	case <-n.failed:
		n.stopping.Store(true)
		n.mux.shut()
		n.setDown()
	case <-n.ctx.Done():
	}
}

// failedCloseLimit is how long the close of a member that has failed may take. Calls to a disk that hangs never return.
const failedCloseLimit = 2 * time.Second

// release closes what open has opened. Where the member has failed it leaves to the end of the process what doesn't end
// by itself.
func (n *Node) release() error {
	if n.Err() == nil {
		return n.releaseAll()
	}
	released := make(chan error, 1)
	go func() { released <- n.releaseAll() }()
	select {
	case err := <-released:
		return err
	case <-time.After(failedCloseLimit):
		return errors.New("the files of the member are not closed, for a call to the disk has not returned")
	}
}

// releaseAll closes in the reverse order.
func (n *Node) releaseAll() error {
	var errs []error
	if n.raft != nil {
		n.awaitAnswers()
		errs = append(errs, n.raft.Shutdown().Error())
	}
	n.setDown()
	n.asking.Wait()
	n.wg.Wait()
	if n.peers != nil {
		n.peers.close()
	}
	if n.trans != nil {
		n.trans.CloseStreams()
		errs = append(errs, n.trans.Close())
	}
	if n.mux != nil {
		errs = append(errs, n.mux.Close())
	}
	n.rounds.wg.Wait()
	n.asks.wg.Wait()
	n.voterLinks.close()
	n.leaderLink.close()
	if n.flusher != nil {
		errs = append(errs, n.flusher.close(n.Err() != nil))
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}
