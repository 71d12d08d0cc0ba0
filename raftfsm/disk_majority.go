package raftfsm

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// What a metasrv leader with space writes is not committed before a majority has stored it, and nobody is elected before a
// majority has stored its votes. Where the disks of too many others are full, both would wait until there is space, and
// nobody would know for what. So the metasrv leader, and each member that knows none, asks the voters for their space.

// patientLooks is how often in a row a voter may be silent until it is not counted on.
const patientLooks = 3

// majoritySpace is what may still be written to a majority of the voters, as the metasrv leader knows it.
type majoritySpace struct {
	// shortage is nil while there is enough.
	shortage atomic.Pointer[shortage]
}

// shortage says that a majority has less space than enough.
type shortage struct {
	level space
	cause string
}

// full returns ErrDiskFull if a majority has less than an amount of space, nil otherwise.
func (m *majoritySpace) full(from space) error {
	s := m.shortage.Load()
	if s == nil || s.level < from {
		return nil
	}
	return metasrv.ErrDiskFull.With("writes and elections need a majority of the members that has space: %s; make space there, all goes on by itself then", s.cause)
}

// Shortage returns ErrDiskFull where a majority takes nothing more, as the metasrv leader and members that know none find
// out. It may be why there is none.
func (n *Node) Shortage() error { return n.majoritySpace.full(spaceOut) }

// voterSpace is what is known of a voter's disk.
type voterSpace struct {
	id    string
	level space
	// missed is how often in a row it has not answered.
	missed int
}

// shortageOf returns how the space of a majority is short, nil where it isn't, also where members are silent and no disk is
// full: then something else is wrong.
func shortageOf(voters []voterSpace) *shortage {
	var causes, silent []string
	with := map[space]int{} // the number of voters that answer, by their level
	for _, v := range voters {
		switch {
		case v.missed >= patientLooks:
			silent = append(silent, fmt.Sprintf("member %s does not answer", v.id))
			continue
		case v.level != spaceEnough:
			causes = append(causes, fmt.Sprintf("the disk of member %s is full", v.id))
		}
		with[v.level]++
	}
	need := len(voters)/2 + 1
	if len(causes) == 0 || with[spaceEnough] >= need {
		return nil
	}
	s := &shortage{level: spaceOut, cause: strings.Join(append(causes, silent...), ", ")}
	if with[spaceEnough]+with[spaceLow] >= need {
		s.level = spaceLow
	}
	return s
}

// watchMajoritySpace asks the voters for their space until ctx ends, while this is for this member to know.
func (n *Node) watchMajoritySpace(ctx context.Context) {
	ticker := time.NewTicker(spacePeriod)
	defer ticker.Stop()
	known := map[raft.ServerID]*voterSpace{}
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if _, leader := n.raft.LeaderWithID(); leader != "" && string(leader) != n.cfg.MemberID {
			n.majoritySpace.shortage.Store(nil)
			clear(known)
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, spacePeriod)
		spaces := n.askSpaces(bounded, known)
		cancel()
		if ctx.Err() == nil {
			n.noteMajoritySpace(shortageOf(spaces))
		}
	}
}

// askSpaces asks the voters for their space. A silent one keeps for some looks what is known of it.
func (n *Node) askSpaces(ctx context.Context, known map[raft.ServerID]*voterSpace) []voterSpace {
	voters := n.voters()
	answers := n.askTerms(ctx, voters)
	var spaces []voterSpace
	for _, s := range voters {
		v := known[s.ID]
		if v == nil {
			v = &voterSpace{id: string(s.ID)}
			known[s.ID] = v
		}
		answer, answered := answers[s.ID]
		switch {
		case v.id == n.cfg.MemberID:
			v.level = n.disk.space()
		case answered:
			v.level, v.missed = toldSpace(answer), 0
		default:
			v.missed++
		}
		spaces = append(spaces, *v)
	}
	return spaces
}

func (n *Node) noteMajoritySpace(now *shortage) {
	was := n.majoritySpace.shortage.Swap(now)
	switch {
	case was == nil && now != nil:
		n.log.Error("no majority of the members has space on its disks: writes are refused, reads go on; make space there, no restart is needed",
			"cause", now.cause)
	case was != nil && now == nil:
		n.log.Info("a majority of the members has space again, writes are taken")
	}
}

func toldSpace(answer *peerpb.TermResponse) space {
	switch {
	case answer.GetDiskOut():
		return spaceOut
	case answer.GetDiskLow():
		return spaceLow
	}
	return spaceEnough
}

// askTerms asks all other voters at once, and returns the answers of those that answer.
func (n *Node) askTerms(ctx context.Context, voters []raft.Server) map[raft.ServerID]*peerpb.TermResponse {
	others, _ := othersToAsk(voters, n.cfg.MemberID)
	type answer struct {
		id   raft.ServerID
		term *peerpb.TermResponse
	}
	answers := make(chan answer, len(others))
	for _, s := range others {
		n.wg.Go(func() {
			response, err := n.peers.ask(ctx, string(s.Address), n.termRequest(string(s.ID)))
			if err != nil {
				answers <- answer{id: s.ID}
				return
			}
			answers <- answer{s.ID, response.GetTerm()}
		})
	}
	told := make(map[raft.ServerID]*peerpb.TermResponse, len(others))
	for range others {
		if a := <-answers; a.term != nil {
			told[a.id] = a.term
		}
	}
	return told
}
