package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Args: noArgs(),
		Short: "Show every member, who leads, and what the cluster holds",
		Long: `Asks every endpoint, and every member that they name, for its own status.

Fails if a member doesn't answer or if there is no metasrv leader that is ready.

RCU/s and WCU/s are the load of all nodes in read and write capacity units a second: one RCU is a read of up to
4 KB, one WCU a write of up to 1 KB.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

// unhealthyError says what a status that was shown lacks.
type unhealthyError struct{ faults []string }

func (e *unhealthyError) Error() string { return strings.Join(e.faults, "\n         ") }

func (a *app) status(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := reach(ctx, a.endpoints); err != nil {
		return err
	}
	// A member that hangs must not take the time that the others' answers need.
	probe, cancelProbe := context.WithTimeout(ctx, a.timeout/2)
	defer cancelProbe()
	answers := askCluster(probe, a.endpoints)
	if !slices.ContainsFunc(answers, answer.inTime) {
		// They may only need more time than there was: no reason to speak of an outage.
		return fmt.Errorf("no member answered: %w", context.DeadlineExceeded)
	}
	if nobody(answers) {
		// Of a cluster that was not found nothing is known, neither that it lacks a leader.
		return &unreachableError{answers}
	}

	faults := faultsOf(answers)
	var stats *metasrvpb.StatsResponse
	if leader := leaderOf(answers); leader != nil && leader.status.LeaderReady {
		err := a.connected(ctx, func(ctx context.Context, c *client.Client) (err error) {
			stats, err = c.Cluster().Stats(ctx, &metasrvpb.StatsRequest{Header: a.header()})
			return err
		})
		if err != nil {
			faults = append(faults, "the totals of the cluster could not be read: "+err.Error())
		}
	}
	if err := a.showStatus(answers, stats); err != nil {
		return err
	}
	if len(faults) > 0 {
		return &unhealthyError{faults}
	}
	return nil
}

// nobody reports whether each endpoint is known to be no member that works.
func nobody(answers []answer) bool {
	return !slices.ContainsFunc(answers, func(a answer) bool { return a.err == nil || !a.inTime() })
}

// leaderOf returns the answer of the metasrv leader: of that with the highest term, if an old one has not
// noticed yet that it was replaced.
func leaderOf(answers []answer) *answer {
	var leader *answer
	for i, a := range answers {
		if a.err == nil && a.role() == "leader" && (leader == nil || a.status.Term > leader.status.Term) {
			leader = &answers[i]
		}
	}
	return leader
}

// pausedFailover returns why the metasrv leader gives no region to another datanode.
func (a *answer) pausedFailover() string {
	if a == nil || a.status.GetQuarantined() {
		return "" // it is said otherwise
	}
	return a.status.GetFailoverPaused()
}

func faultsOf(answers []answer) []string {
	var faults []string
	for _, a := range answers {
		if a.err != nil {
			faults = append(faults, fmt.Sprintf("%s does not answer: %s", a.endpoint, why(a.err)))
		}
	}
	if fault := mixed(answers); fault != "" {
		faults = append(faults, fault)
	}
	for _, a := range answers {
		if split := a.status.GetSplit(); split != "" {
			faults = append(faults, "writes are refused: "+split+". Keep all data folders, save a snapshot of each member, find out which is right,"+
				" and restore from it")
			break
		}
	}
	for _, a := range answers {
		if full := a.status.GetDiskFull(); full != "" {
			faults = append(faults, full)
		}
	}
	if paused := leaderOf(answers).pausedFailover(); paused != "" {
		faults = append(faults, "no region of a datanode that fails is given to another one: "+paused)
	}
	switch leader := leaderOf(answers); {
	case leader == nil:
		fault := withoutLeader(answers)
		if fault == noLeader {
			fault += ": writes and heartbeats are refused until a majority of its members is up and connected"
		}
		faults = append(faults, fault)
	case leader.status.Quarantined:
		faults = append(faults, "the state was restored or recovered and is not confirmed: no replica is dropped; see: metactl quarantine show")
	case !leader.status.LeaderReady:
		faults = append(faults, leader.status.GetMember().GetId()+" is still taking over as metasrv leader; try again in some seconds")
	}
	return faults
}

// mixed says which answers are of another cluster than the first one, or of another life of it; empty if none are. A client
// with such endpoints would read from one and write to the other.
func mixed(answers []answer) string {
	var first *answer
	for i, a := range answers {
		switch h := a.status.GetHeader(); {
		case h.GetClusterId() == 0:
		case first == nil:
			first = &answers[i]
		case h.GetClusterId() != first.status.Header.GetClusterId():
			return fmt.Sprintf("%s is part of cluster %d and %s of cluster %d: name the endpoints of one cluster",
				first.endpoint, first.status.Header.GetClusterId(), a.endpoint, h.GetClusterId())
		case h.GetClusterIncarnation() != first.status.Header.GetClusterIncarnation():
			return fmt.Sprintf("%s and %s have parts in different lives of cluster %d (%016x and %016x), before and after a restore or a recovery: "+
				"name the endpoints of the later one", first.endpoint, a.endpoint, h.GetClusterId(),
				first.status.Header.GetClusterIncarnation(), h.GetClusterIncarnation())
		}
	}
	return ""
}

func (a *app) showStatus(answers []answer, stats *metasrvpb.StatsResponse) error {
	if a.format == formatJSON {
		return a.statusJSON(answers, stats)
	}
	var b strings.Builder
	g := newGrid(&b, "MEMBER", "ENDPOINT", "ROLE", "TERM", "REVISION", "APPLIED", "FLUSHED", "IMAGE", "UPTIME", "VERSION")
	for _, a := range answers {
		if a.err != nil {
			g.row(cmp.Or(a.id, "?"), a.endpoint, "no answer", "", "", "", "", "", "", "")
			continue
		}
		s := a.status
		g.row(s.GetMember().GetId(), a.endpoint, a.role(), number(s.Term), number(s.GetHeader().GetRevision()),
			number(s.AppliedIndex), number(s.FlushedIndex), size(uint64(max(0, s.ImageBytes))),
			span(millis(s.UptimeMs)), s.GetMember().GetVersion())
	}
	g.end()
	fmt.Fprintf(&b, "\nleader  %s\n", leaderLine(answers))
	if stats != nil {
		fmt.Fprintf(&b, "nodes   %d live, %d suspect, %d down; %.0f RCU/s, %.0f WCU/s\n",
			stats.LiveNodes, stats.SuspectNodes, stats.DownNodes, stats.RcusPerSecond, stats.WcusPerSecond)
		fmt.Fprintf(&b, "holds   %s, %s, %s, %s\n", plural(stats.Catalogs, "catalog"), plural(stats.Schemas, "schema"),
			plural(stats.Tables, "table"), plural(stats.Regions, "region"))
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}

func leaderLine(answers []answer) string {
	if leader := leaderOf(answers); leader != nil {
		return fmt.Sprintf("%s at %s, in term %d", leader.status.GetMember().GetId(), leader.endpoint, leader.status.Term)
	}
	if withoutLeader(answers) == noLeader {
		return "none"
	}
	return "not known"
}

func (a *app) statusJSON(answers []answer, stats *metasrvpb.StatsResponse) error {
	type member struct {
		Endpoint string          `json:"endpoint"`
		Member   string          `json:"member,omitempty"`
		Status   json.RawMessage `json:"status,omitempty"`
		Error    string          `json:"error,omitempty"`
	}
	doc := struct {
		Members []member        `json:"members"`
		Stats   json.RawMessage `json:"stats,omitempty"`
	}{Members: []member{}}
	for _, a := range answers {
		m := member{Endpoint: a.endpoint, Member: a.id, Error: why(a.err)}
		if a.err == nil {
			b, err := toJSON(a.status)
			if err != nil {
				return err
			}
			m.Status = b
		}
		doc.Members = append(doc.Members, m)
	}
	if stats != nil {
		b, err := toJSON(stats)
		if err != nil {
			return err
		}
		doc.Stats = b
	}
	return writeJSON(a.out, doc)
}
