package main

import (
	"context"
	"fmt"
	"io"
	"slices"
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
index that they have in common. Members do that by themselves every 10 s, and one that a majority contradicts ends.

Fails if a member doesn't answer or if two of the same build differ.`,
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
	index, at := commonIndex(answers)
	if err := a.showHashes(answers, index, at); err != nil {
		return err
	}
	if faults := hashFaults(answers, index, at); len(faults) > 0 {
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

// commonIndex returns the latest index at which all that answered have a hash, 0 where there is none, and those hashes.
func commonIndex(answers []hashAnswer) (uint64, []uint64) {
	byMember := make([]map[uint64]uint64, len(answers))
	var candidates []uint64
	for i, a := range answers {
		byMember[i] = map[uint64]uint64{}
		for _, h := range append(a.hashes.GetEarlier(), a.hashes.GetPresent()) {
			byMember[i][h.GetIndex()] = h.GetHash()
			candidates = append(candidates, h.GetIndex())
		}
	}
	slices.Sort(candidates)
	for _, index := range slices.Backward(slices.Compact(candidates)) {
		at := make([]uint64, len(answers))
		missing := false
		for i, a := range answers {
			hash, ok := byMember[i][index]
			missing = missing || a.err == nil && !ok
			at[i] = hash
		}
		if !missing && index > 0 {
			return index, at
		}
	}
	return 0, make([]uint64, len(answers))
}

func hashFaults(answers []hashAnswer, index uint64, at []uint64) []string {
	var faults []string
	first := map[string]int{}
	for i, a := range answers {
		if a.err != nil {
			faults = append(faults, fmt.Sprintf("%s does not answer: %s", a.endpoint, why(a.err)))
			continue
		}
		build := a.hashes.GetBuild()
		j, seen := first[build]
		if !seen {
			first[build] = i
		} else if at[i] != at[j] {
			faults = append(faults, fmt.Sprintf("%s and %s have different states at index %d: keep their data folders, and see what they log",
				answers[j].id, a.id, index))
		}
	}
	if index == 0 && len(faults) == 0 {
		faults = append(faults, "the members have no index in common at this moment; try again")
	}
	return faults
}

func (a *app) showHashes(answers []hashAnswer, index uint64, at []uint64) error {
	if a.format == formatJSON {
		return a.hashJSON(answers, index, at)
	}
	var b strings.Builder
	g := newGrid(&b, "MEMBER", "ENDPOINT", "INDEX", "HASH", "COMPARED", "BUILD")
	for i, m := range answers {
		if m.err != nil {
			g.row(m.id, m.endpoint, "no answer", "", "", "")
			continue
		}
		hash := "-"
		if index > 0 {
			hash = fmt.Sprintf("%016x", at[i])
		}
		g.row(m.id, m.endpoint, number(index), hash, number(m.hashes.GetComparedIndex()), m.hashes.GetBuild())
	}
	g.end()
	_, err := io.WriteString(a.out, b.String())
	return err
}

func (a *app) hashJSON(answers []hashAnswer, index uint64, at []uint64) error {
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
	}{Index: index, Members: []member{}}
	for i, m := range answers {
		line := member{Endpoint: m.endpoint, Member: m.id, Error: why(m.err)}
		if m.err == nil {
			line.Hash, line.Build = fmt.Sprintf("%016x", at[i]), m.hashes.GetBuild()
		}
		doc.Members = append(doc.Members, line)
	}
	return writeJSON(a.out, doc)
}
