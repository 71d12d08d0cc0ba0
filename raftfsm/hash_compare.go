package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// Members that executed the same entries have the same state, unless hardware or metasrv is at fault. Each member asks all
// others for the hashes of their states and judges itself: one that a majority contradicts ends, for it would answer
// wrongly. Where no majority agrees, nobody can tell who is right: every member then refuses to be written to as the
// metasrv leader, while reads go on.

// compareHashes compares this member's states with those of the others until ctx ends.
func (n *Node) compareHashes(ctx context.Context) {
	for {
		n.compareOnce(ctx)
		select {
		case <-time.After(n.cfg.Timing.Compare):
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) compareOnce(ctx context.Context) {
	servers := n.configuration().Servers
	if len(servers) < 2 {
		n.noteSplit(nil)
		return
	}
	// Before the own: what others have by now, this member may have when it looks at its own.
	others := n.askHashes(ctx, servers)
	self := hashReport{member: n.cfg.MemberID, build: n.build(), hashes: n.fsm.latestHashes()}
	voters := 0
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
			self.voter = self.voter || string(s.ID) == self.member
		}
	}
	c := judge(self, others, voters)
	if c.compared > 0 {
		n.compared.Store(c.compared)
	}
	if c.wrong != "" {
		n.fail(fmt.Errorf("%s. This member would answer wrongly, so it ends: by a fault of its hardware or of metasrv its state is not what "+
			"its log says. Keep its data folder %s for the search. Replace it: remove member %s from the cluster, and let it join again with an "+
			"empty folder under a new id", c.wrong, n.cfg.DataDir, n.cfg.MemberID))
		return
	}
	n.noteSplit(c.after(n.split.Load(), voters))
}

// noteSplit stops or allows writes.
func (n *Node) noteSplit(s *split) {
	was := n.split.Swap(s)
	switch {
	case s == nil && was != nil:
		n.log.Info("a majority of the members agrees on the state again, writes are allowed")
	case s != nil && was == nil:
		n.log.Error("writes are refused: nobody can tell which member has the right state. Keep all data folders, save a snapshot of each "+
			"member, find out which is right, and restore from it", "cause", s.cause)
	}
}

// Hashes are the hashes of a member's states.
type Hashes struct {
	// Index is that of the present state, Hash the state's hash.
	Index, Hash uint64
	// Earlier has states before it, by their index.
	Earlier map[uint64]uint64
	// Build names the program: only members of the same one have the same hashes for certain.
	Build string
}

// Hashes returns the hashes of the present state and of some before it.
func (n *Node) Hashes() Hashes {
	latest := n.fsm.latestHashes()
	h := Hashes{Earlier: make(map[uint64]uint64, len(latest)), Build: n.build()}
	for _, l := range latest {
		if l.index >= h.Index {
			h.Index, h.Hash = l.index, l.hash
		}
		h.Earlier[l.index] = l.hash
	}
	delete(h.Earlier, h.Index)
	return h
}

// Split says how the members' states differ where no majority agrees on one, "" where all is well.
func (n *Node) Split() string {
	if s := n.split.Load(); s != nil {
		return s.cause
	}
	return ""
}

// requireAgreement returns ErrStatesDiffer while nobody can tell which member has the right state. Who the members are is
// still recorded: to remove one, and to take in another, is how an operator ends that.
func (n *Node) requireAgreement(kind storagepb.CommandKind) error {
	split := n.Split()
	if split == "" || kind == storagepb.CommandKind_COMMAND_KIND_REMOVE_MEMBER || kind == storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER {
		return nil
	}
	return metasrv.ErrStatesDiffer.With("writes are refused, reads go on: %s. Keep all data folders, save a snapshot of each member, "+
		"find out which is right, and restore from it", split)
}

// askHashes asks the other members. Those that don't answer are left out.
func (n *Node) askHashes(ctx context.Context, servers []raft.Server) []hashReport {
	answers := make(chan hashReport, len(servers))
	asked := 0
	for _, s := range servers {
		if string(s.ID) == n.cfg.MemberID {
			continue
		}
		asked++
		n.wg.Go(func() {
			report, err := n.askHash(ctx, s)
			if err != nil {
				report = hashReport{}
			}
			answers <- report
		})
	}
	var reports []hashReport
	for range asked {
		if r := <-answers; r.member != "" {
			reports = append(reports, r)
		}
	}
	return reports
}

var errNoHashes = errors.New("the member doesn't tell hashes")

func (n *Node) askHash(ctx context.Context, s raft.Server) (hashReport, error) {
	request := n.addressed(string(s.ID), &peerpb.Request{Request: &peerpb.Request_Hashes{Hashes: &peerpb.HashesRequest{}}})
	response, err := n.peers.ask(ctx, string(s.Address), request)
	switch {
	case err != nil:
		return hashReport{}, err
	case response.GetHashes() == nil:
		return hashReport{}, errNoHashes
	}
	report := hashReport{member: string(s.ID), voter: s.Suffrage == raft.Voter, build: response.GetHashes().GetBuild()}
	for _, h := range response.GetHashes().GetHashes() {
		report.hashes = append(report.hashes, stateHash{index: h.GetIndex(), hash: h.GetHash()})
	}
	return report, nil
}

// answerHashes tells another member the hashes of this one's states.
func (n *Node) answerHashes() *peerpb.Response {
	response := &peerpb.HashesResponse{Build: n.build()}
	for _, h := range n.fsm.latestHashes() {
		response.Hashes = append(response.Hashes, &peerpb.StateHash{Index: h.index, Hash: h.hash})
	}
	return &peerpb.Response{Hashes: response}
}

// build names the program that this member runs. Another program may keep other records for the same commands.
func (n *Node) build() string {
	return fmt.Sprintf("%s/%d", n.cfg.Member.GetVersion(), n.cfg.CommandVersion)
}
