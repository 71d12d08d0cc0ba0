package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) hashCommand() *cobra.Command {
	return &cobra.Command{
		Use: "hash", Args: noArgs(),
		Short: "Compare the state of every member by its hash",
		Long: `Asks every endpoint, and every member that they name, for the hashes of its states, and compares them at the latest
index that all have in common, or else that most have. Members do that by themselves every 10 s, and one that a majority
contradicts ends.

Fails if two members of the same build differ, or if one doesn't answer or can't be compared, such as one that was just added.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.hash(cmd.Context()) },
	}
}

// hashAnswer is what one member said of its states.
type hashAnswer struct {
	answer
	hashes *metasrvpb.HashResponse
}

func (a *app) hash(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := reach(ctx, a.endpoints); err != nil {
		return err
	}
	answers := askHashes(ctx, askCluster(ctx, a.endpoints))
	c := compareAt(answers)
	if err := a.showHashes(answers, c); err != nil {
		return err
	}
	if faults := hashFaults(answers, c); len(faults) > 0 {
		return &unhealthyError{faults}
	}
	return nil
}

func askHashes(ctx context.Context, members []answer) []hashAnswer {
	answers := make([]hashAnswer, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		answers[i].answer = m
		if m.err == nil {
			wg.Go(func() { answers[i].hashes, answers[i].err = askHash(ctx, m.endpoint) })
		}
	}
	wg.Wait()
	return answers
}

func askHash(ctx context.Context, endpoint string) (*metasrvpb.HashResponse, error) {
	conn, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return metasrvpb.NewMaintenanceClient(conn).Hash(ctx, &metasrvpb.HashRequest{})
}

// compared are the hashes of the members at one index.
type compared struct {
	// index is 0 where no two members have one in common.
	index uint64
	// at has the hash of each member in the order of the answers, nil for one that has none at the index.
	at []*uint64
}

// compareAt returns the hashes at the index that the most members have, the latest of such indexes. A member that waits to
// be taken in has no state, and one that was fed with a snapshot only later states: neither keeps the others from being
// compared.
func compareAt(answers []hashAnswer) compared {
	having := map[uint64]int{}
	able := 0 // members with a state
	for _, a := range answers {
		states := a.states()
		if len(states) > 0 {
			able++
		}
		for index := range states {
			having[index]++
		}
	}
	c := compared{at: make([]*uint64, len(answers))}
	for index, n := range having {
		if n > having[c.index] || n == having[c.index] && index > c.index {
			c.index = index
		}
	}
	if able > 1 && having[c.index] < 2 {
		c.index = 0
	}
	for i, a := range answers {
		if hash, has := a.states()[c.index]; has {
			c.at[i] = &hash
		}
	}
	return c
}

// states returns the hashes that a member has told, by index.
func (a hashAnswer) states() map[uint64]uint64 {
	states := map[uint64]uint64{}
	for _, h := range append(a.hashes.GetEarlier(), a.hashes.GetPresent()) {
		if h.GetIndex() > 0 {
			states[h.GetIndex()] = h.GetHash()
		}
	}
	return states
}

func hashFaults(answers []hashAnswer, c compared) []string {
	var faults, apart []string
	first := map[string]int{}
	for i, a := range answers {
		switch {
		case a.err != nil:
			faults = append(faults, fmt.Sprintf("%s does not answer: %s", a.endpoint, why(a.err)))
		case len(a.states()) == 0:
			faults = append(faults, fmt.Sprintf("%s has no state yet, so it was not compared: it waits until it is taken in and fed", a.id))
		case c.at[i] == nil:
			apart = append(apart, a.id)
		default:
			build := a.hashes.GetBuild()
			j, seen := first[build]
			if !seen {
				first[build] = i
			} else if *c.at[i] != *c.at[j] {
				faults = append(faults, fmt.Sprintf("%s and %s have different states at index %d: keep their data folders, and see what they log",
					answers[j].id, a.id, c.index))
			}
		}
	}
	switch {
	case len(apart) > 0 && c.index == 0:
		faults = append(faults, fmt.Sprintf("%s have no index in common at this moment; try again", strings.Join(apart, ", ")))
	case len(apart) > 0:
		faults = append(faults, fmt.Sprintf("%s was not compared: it has no state of index %d; try again", strings.Join(apart, ", "), c.index))
	}
	return faults
}

func (a *app) showHashes(answers []hashAnswer, c compared) error {
	if a.format == formatJSON {
		return a.hashJSON(answers, c)
	}
	var b strings.Builder
	g := newGrid(&b, "MEMBER", "ENDPOINT", "INDEX", "HASH", "COMPARED", "BUILD")
	for i, m := range answers {
		if m.err != nil {
			g.row(m.id, m.endpoint, "no answer", "", "", "")
			continue
		}
		index, hash := none, none
		if c.at[i] != nil {
			index, hash = number(c.index), fmt.Sprintf("%016x", *c.at[i])
		}
		g.row(m.id, m.endpoint, index, hash, number(m.hashes.GetComparedIndex()), m.hashes.GetBuild())
	}
	g.end()
	_, err := io.WriteString(a.out, b.String())
	return err
}

func (a *app) hashJSON(answers []hashAnswer, c compared) error {
	type member struct {
		Endpoint string `json:"endpoint"`
		Member   string `json:"member,omitempty"`
		Hash     string `json:"hash,omitempty"`
		Build    string `json:"build,omitempty"`
		Error    string `json:"error,omitempty"`
	}
	doc := struct {
		Index   uint64   `json:"index"`
		Members []member `json:"members"`
	}{Index: c.index, Members: []member{}}
	for i, m := range answers {
		line := member{Endpoint: m.endpoint, Member: m.id, Error: why(m.err)}
		if m.err == nil {
			line.Build = m.hashes.GetBuild()
		}
		if c.at[i] != nil {
			line.Hash = fmt.Sprintf("%016x", *c.at[i])
		}
		doc.Members = append(doc.Members, line)
	}
	return writeJSON(a.out, doc)
}
