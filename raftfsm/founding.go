package raftfsm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// Intervals of a member that has no data.
const (
	foundInterval = 100 * time.Millisecond
	joinInterval  = 500 * time.Millisecond
	// waitingLogInterval is how often it says what it waits for.
	waitingLogInterval = 10 * time.Second
)

// A cluster is founded by all of its founders or not at all: each asks all others, and founds when every one has
// answered that it is new too. Each then knows the number (nonce) that every other one's folder has. A founder whose
// folder was replaced afterwards has another number, and is refused; so is one that finds members of a cluster that it
// has no part in. A majority would not be enough: the one that doesn't answer may be the last that has the data.

// enter lets a member without data into the cluster that it is configured for. It returns an error where the member
// must not take part; where it can't do so yet, it goes on in the background.
func (n *Node) enter(ctx context.Context) error {
	try, interval := n.tryFound, foundInterval
	if n.cfg.InitialClusterState == ClusterExisting {
		try, interval = n.tryJoin, joinInterval
	}
	waiting, err := try(ctx)
	if err != nil || waiting == "" {
		return err
	}
	n.wg.Go(func() { n.keepEntering(n.ctx, try, interval, waiting) })
	return nil
}

// keepEntering tries until the member takes part, must not, or ctx ends, and says now and then what it waits for.
func (n *Node) keepEntering(ctx context.Context, try func(context.Context) (string, error), interval time.Duration, waiting string) {
	var said string
	var saidAt time.Time
	for {
		now := waiting
		n.waiting.Store(&now)
		if waiting != said || time.Since(saidAt) >= waitingLogInterval {
			n.log.Info("this member waits", "for", waiting)
			said, saidAt = waiting, time.Now()
		}
		select {
		case <-time.After(interval):
		case <-n.knock:
		case <-ctx.Done():
			return
		}
		next, err := try(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.fail(err)
			return
		case next == "":
			n.waiting.Store(nil)
			return
		}
		waiting = next
	}
}

// tryFound founds the cluster if every other founder is ready for it. waiting says what is missing.
func (n *Node) tryFound(ctx context.Context) (waiting string, err error) {
	var others []Server
	for _, s := range n.cfg.InitialCluster {
		if s.ID != n.cfg.MemberID {
			others = append(others, s)
		}
	}
	nonces := map[string]uint64{n.cfg.MemberID: n.file.Nonce}
	var missing []string
	for i, answer := range n.askHistories(ctx, others) {
		reason, err := n.judgeFounder(others[i], answer)
		if err != nil {
			return "", err
		}
		if reason != "" {
			missing = append(missing, reason)
		}
		nonces[others[i].ID] = answer.GetNonce()
	}
	if len(missing) > 0 {
		return "all founders of the new cluster: " + strings.Join(missing, "; "), nil
	}
	return "", n.found(ctx, nonces)
}

// judgeFounder returns why another founder is not ready, "" if it is. The error says that this member must not found.
func (n *Node) judgeFounder(s Server, answer *peerpb.HistoryResponse) (waiting string, err error) {
	switch {
	case answer == nil:
		return fmt.Sprintf("%s at %s does not answer", s.ID, s.RaftAddr), nil
	case answer.GetMemberId() != s.ID:
		return fmt.Sprintf("at %s answers member %q instead of %s", s.RaftAddr, answer.GetMemberId(), s.ID), nil
	case answer.GetFoundedWith():
		return "", nil
	case answer.GetRemoved():
		return "", n.errRemoved(s.ID)
	case answer.GetKnown():
		return "", n.errDataLost(s.ID)
	case answer.GetClusterId() != 0:
		return "", fmt.Errorf("%s is empty and member %s was told to found a cluster, but member %s at %s is part of cluster %d already: "+
			"founding again would leave its data behind. Let this member join instead: %s",
			n.cfg.DataDir, n.cfg.MemberID, s.ID, s.RaftAddr, answer.GetClusterId(), n.howToJoin())
	case answer.GetNonce() == 0:
		return fmt.Sprintf("%s at %s was not told to found a cluster (--initial-cluster-state new)", s.ID, s.RaftAddr), nil
	case !slices.Equal(answer.GetFounders(), n.founderList()):
		return fmt.Sprintf("%s at %s has another --initial-cluster: %s", s.ID, s.RaftAddr, strings.Join(answer.GetFounders(), ",")), nil
	}
	return "", nil
}

// found founds the cluster. The number of the cluster comes from those of all founders' folders, so that each knows it
// before the first entry.
func (n *Node) found(ctx context.Context, nonces map[string]uint64) error {
	id := xxhash.New()
	for _, member := range slices.Sorted(maps.Keys(nonces)) {
		_, _ = fmt.Fprintf(id, "%s=%x\n", member, nonces[member])
	}
	if err := n.editFile(func(f *memberFile) { f.Founders, f.ClusterID = nonces, id.Sum64()|1 }); err != nil {
		return err
	}
	n.log.Info("founding the cluster", "members", len(nonces))
	var c raft.Configuration
	for _, s := range n.cfg.InitialCluster {
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.RaftAddr),
		})
	}
	if err := n.awaitFuture(ctx, n.raft.BootstrapCluster(c)); err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	n.admitted.Store(true)
	return nil
}

// checkFounded returns an error if a member without a log has founded its cluster before.
func (n *Node) checkFounded(hadLog bool) error {
	if len(n.file.Founders) > 0 && !hadLog {
		return fmt.Errorf("%s says that member %s has founded its cluster, but its log is gone: it may have voted and must not vote again. %s",
			n.file.path, n.cfg.MemberID, n.howToReplace())
	}
	return nil
}

func (n *Node) founderList() []string {
	if n.cfg.InitialClusterState != ClusterNew {
		return nil
	}
	var list []string
	for _, s := range n.cfg.InitialCluster {
		list = append(list, s.ID+"="+s.RaftAddr)
	}
	slices.Sort(list)
	return list
}

// errDataLost refuses a member that has taken part before and has nothing of it any more.
func (n *Node) errDataLost(witness string) error {
	return fmt.Errorf("%s is empty, but member %s says that member %s has taken part in the cluster: its data is lost, and it must not vote again. %s",
		n.cfg.DataDir, witness, n.cfg.MemberID, n.howToReplace())
}

func (n *Node) howToReplace() string {
	return fmt.Sprintf("Put its data folder back, or replace it: metactl member remove %s; then %s", n.cfg.MemberID, n.howToJoin())
}

// howToJoin returns the two commands that bring a new member into a cluster.
func (n *Node) howToJoin() string {
	return fmt.Sprintf("metactl member add NEW-ID --raft-addr %s; metasrv server --node-id NEW-ID --data-dir EMPTY-FOLDER --initial-cluster-state existing …",
		n.cfg.Member.RaftAddr)
}
