package raftfsm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Upgrades. Every build knows command versions up to one of its own, which its member publishes. The replicated cluster
// version is the highest that all members know, and only ever rises; entries carry it. A command that came with a later
// one is refused before the log, so members are upgraded one after the other, and until the last one was, each can
// go back to the build that it had.

// versionInterval is how often the metasrv leader looks whether the cluster version can rise.
const versionInterval = 100 * time.Millisecond

// raiseVersion raises the cluster version to what all members know, until the term ends.
func (n *Node) raiseVersion(ctx context.Context, l Leadership) {
	ticker := time.NewTicker(versionInterval)
	defer ticker.Stop()
	for n.fsm.current.position().Version < n.cfg.CommandVersion {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		from, to := n.fsm.current.position().Version, n.commonVersion()
		if to <= from {
			continue
		}
		if n.duty(ctx, l, storagepb.CommandKind_COMMAND_KIND_SET_CLUSTER_VERSION,
			&storagepb.SetClusterVersion{From: from, Version: to}) {
			n.log.Info("every member knows a later command version, the cluster uses it from now on", "from", from, "version", to)
		}
	}
}

// commonVersion returns the highest command version that every member of the raft configuration has published to know.
// A member that has published nothing knows the first one only.
func (n *Node) commonVersion() uint32 {
	version := n.cfg.CommandVersion
	for _, server := range n.configuration().Servers {
		record, _ := n.publishedMember(string(server.ID))
		version = min(version, machine.CommandVersion(record))
	}
	return version
}

// checkKnown returns ErrClusterVersion if a member may not know a kind of command yet, or what this one says, and
// ErrNotReady where that is only not known yet: in the first moments of a cluster, or after the last upgrade.
func (n *Node) checkKnown(p *state.Proposal) error {
	kind := p.Kind
	present, since := n.fsm.current.position().Version, n.fsm.machine.Needs(kind, p.Payload)
	switch {
	case since == 0:
		return metasrv.ErrClusterVersion.With("%s is unknown to this version of metasrv", kind)
	case since <= present:
		return nil
	}
	below, silent := n.membersBelow(since)
	if len(below) == 0 {
		return metasrv.ErrNotReady.With("%s needs cluster version %d, the cluster is at %d, which is about to rise%s", kind, since, present, silent)
	}
	return metasrv.ErrClusterVersion.With("%s needs cluster version %d, the cluster is at %d: it rises by itself when every member runs a build "+
		"that knows it; upgrade %s", kind, since, present, strings.Join(below, ", "))
}

// membersBelow names the members that don't know a version, and says in words which have not said yet what they know.
func (n *Node) membersBelow(version uint32) (below []string, silent string) {
	var names []string
	for _, server := range n.configuration().Servers {
		record, published := n.publishedMember(string(server.ID))
		switch {
		case !published:
			names = append(names, string(server.ID))
		case machine.CommandVersion(record) < version:
			below = append(below, fmt.Sprintf("member %s (version %q)", server.ID, record.GetVersion()))
		}
	}
	if len(names) > 0 {
		silent = " as soon as member " + strings.Join(names, ", ") + " has told its version"
	}
	return below, silent
}

// checkVersion returns an error if this build is too old for a cluster version.
func (n *Node) checkVersion(cluster uint32) error {
	if cluster <= n.cfg.CommandVersion {
		return nil
	}
	return fmt.Errorf("member %s can't take part in the cluster: %w", n.cfg.MemberID,
		&machine.TooOldError{Need: cluster, Known: n.cfg.CommandVersion})
}

// checkMember returns an error if a member that publishes its record is too old for the cluster.
func (n *Node) checkMember(member *storagepb.MemberRecord) error {
	present := n.fsm.current.position().Version
	if known := machine.CommandVersion(member); known < present {
		return fmt.Errorf("member %s can't take part in the cluster: %w", member.GetId(), &machine.TooOldError{Need: present, Known: known})
	}
	return nil
}
