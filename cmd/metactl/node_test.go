package main

import (
	"strings"
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Nodes are listed with their groups, where there are groups.
func TestShowNodes(t *testing.T) {
	nodes := []*metasrvpb.Node{
		{Peer: &metasrvpb.Peer{Id: 1, Addr: "10.0.0.1:4001"}}, {Peer: &metasrvpb.Peer{Id: 2, Addr: "10.0.0.2:4001"}, Info: &metasrvpb.NodeInfo{}},
	}
	show := func() []string {
		var b strings.Builder
		showNodes(&b, nodes)
		return strings.Split(b.String(), "\n")
	}
	if head := show()[0]; strings.Contains(head, "GROUP") {
		t.Errorf("without groups: %s", head)
	}
	nodes[1].Info.Group = "blue"
	lines := show()
	at := strings.Index(lines[0], "GROUP")
	if at < 0 || !strings.HasPrefix(lines[1][at:], "-") || !strings.HasPrefix(lines[2][at:], "blue ") {
		t.Errorf("with a group: %q", lines)
	}
}
