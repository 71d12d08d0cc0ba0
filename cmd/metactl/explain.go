package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
)

// What an operator does about an error, by its reason.
var advice = map[string]string{
	metasrv.ErrCatalogNotFound.Reason: "List them with: metactl catalog list",
	metasrv.ErrSchemaNotFound.Reason:  "List them with: metactl schema list",
	metasrv.ErrTableNotFound.Reason: "List them with: metactl table list\n" +
		"A name without catalog or schema is looked for in greptime.public.",
	metasrv.ErrNodeNotFound.Reason:      "List them with: metactl node list",
	metasrv.ErrRegionNotFound.Reason:    "List them with: metactl region list",
	metasrv.ErrProcedureNotFound.Reason: "List them with: metactl procedure list --all",
	metasrv.ErrNodesNotHeard.Reason:     "A new metasrv leader waits for the heartbeats of its nodes. Try again in some seconds.",
	metasrv.ErrMemberNotFound.Reason:    "List them with: metactl member list",
	metasrv.ErrOverloaded.Reason:        "Try again later.",
	metasrv.ErrOutcomeUnknown.Reason:    "Look whether it was done before you try again.",
}

// Errors that say something of the cluster rather than of the request: what each endpoint says helps.
var ofTheCluster = []string{
	metasrv.ErrNotLeader.Reason, metasrv.ErrNotReady.Reason, metasrv.ErrOutcomeUnknown.Reason,
}

// explain returns an error as a person needs it in the middle of the night: what went wrong, what each
// endpoint says, and what to do.
func (a *app) explain(ctx context.Context, err error) string {
	if un, ok := errors.AsType[*unreachableError](err); ok {
		return explainUnreachable(un.answers)
	}
	if sick, ok := errors.AsType[*unhealthyError](err); ok {
		return sick.Error()
	}
	if ofFiles(err) {
		return err.Error()
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return "interrupted; a change that was under way may have been made or not"
	}
	domain, isDomain := errors.AsType[*metasrv.Error](err)
	inTime := !errors.Is(err, context.DeadlineExceeded)
	if isDomain && inTime && !slices.Contains(ofTheCluster, domain.Reason) {
		return withAdvice(domain.Error(), domain.Reason)
	}

	probe, cancel := context.WithTimeout(ctx, a.probeTimeout)
	defer cancel()
	answers := askCluster(probe, a.endpoints)
	if !slices.ContainsFunc(answers, func(a answer) bool { return a.err == nil }) {
		return explainUnreachable(answers)
	}
	if leaderOf(answers) == nil {
		return withoutLeader(answers) + "\n" + said(answers) + adviceWithoutLeader(answers) +
			"Until then reads work with --stale, and writes don't."
	}
	switch {
	case isDomain:
		return withAdvice(because(domain, err)+"\n"+strings.TrimSuffix(said(answers), "\n"), domain.Reason)
	case !inTime:
		return fmt.Sprintf("no answer within %v\n%sTry again with a longer --timeout.", a.timeout, said(answers))
	}
	return err.Error()
}

// ofFiles reports whether an error is of a file on this machine: no endpoint can say anything of it.
func ofFiles(err error) bool {
	_, path := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	return path || link || errors.Is(err, snapshot.ErrDamaged) || errors.Is(err, snapshot.ErrVersion)
}

// because returns what a metasrv error says, and what was said by the call that ended with it.
func because(domain *metasrv.Error, err error) string {
	if said := err.Error(); !strings.Contains(domain.Error(), said) && domain.Reason == metasrv.ErrOutcomeUnknown.Reason {
		return domain.Error() + ": " + said
	}
	return domain.Error()
}

const noLeader = "the cluster has no metasrv leader"

// withoutLeader says what is known of the metasrv leader where no answer is its own. A member that was too slow
// to answer may be it.
func withoutLeader(answers []answer) string {
	if id := namedLeader(answers); id != "" {
		return "the metasrv leader " + id + " does not answer"
	}
	if slow := slices.DeleteFunc(slices.Clone(answers), answer.inTime); len(slow) > 0 {
		return "no metasrv leader was found; " + listOf(slow) + " did not answer in time and may be it"
	}
	return noLeader
}

// namedLeader returns the id of the metasrv leader that the answer with the highest term names, empty where it names none.
func namedLeader(answers []answer) string {
	id, term := "", uint64(0)
	for _, a := range answers {
		if a.err == nil && a.status.GetTerm() >= term {
			id, term = a.status.GetLeader().GetId(), a.status.GetTerm()
		}
	}
	return id
}

func listOf(answers []answer) string {
	var names []string
	for _, a := range answers {
		names = append(names, cmp.Or(a.id, a.endpoint))
	}
	return strings.Join(names, ", ")
}

func adviceWithoutLeader(answers []answer) string {
	if namedLeader(answers) != "" || slices.ContainsFunc(answers, func(a answer) bool { return !a.inTime() }) {
		return "If it is gone, the others elect another one within a second or two. If members are only slow, try again\n" +
			"with a longer --timeout, and look at their logs and disks.\n"
	}
	if slices.ContainsFunc(answers, func(a answer) bool { return a.err != nil }) {
		return "It elects one as soon as a majority of its members is up: start those that don't answer.\n"
	}
	return "It elects one as soon as a majority of its members reach each other on their raft ports (3003 by\n" +
		"default): try again in some seconds, then look at the logs of the members.\n"
}

func withAdvice(msg, reason string) string {
	if do := advice[reason]; do != "" {
		return msg + "\n" + do
	}
	return msg
}

func explainUnreachable(answers []answer) string {
	msg := "no metasrv answered\n" + said(answers)
	if len(answers) == 1 && answers[0].endpoint == defaultEndpoint && why(answers[0].err) == refused {
		return msg + "Start one with \"metasrv dev\", or name the members of your cluster:\n" +
			"  metactl --endpoints HOST:3002,…   or   export METACTL_ENDPOINTS=HOST:3002,…"
	}
	return msg + "Is metasrv running there, and are these its gRPC addresses (3002 by default)?\n" +
		"They come from --endpoints, METACTL_ENDPOINTS or METASRV_ENDPOINTS."
}

// said lists what each endpoint said, a line each.
func said(answers []answer) string {
	var b strings.Builder
	g := newGrid(&b)
	for _, a := range answers {
		g.row("  "+a.endpoint, a.describe())
	}
	g.end()
	return b.String()
}
