package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// memberUse is what a member's process has used, as its /metrics say.
type memberUse struct {
	id     string
	leader bool
	// started tells a process from the one before.
	started, cpuSeconds float64
	resident            uint64
	// terms counts those that the process has begun as the metasrv leader, failures the nodes that it found to have failed.
	terms, failures float64
}

// metricsTimeout bounds the wait for one member: one that is gone must not hold the measurement up.
const metricsTimeout = time.Second

// memberUses asks each member that can be reached.
func memberUses(ctx context.Context, c *client.Client) map[string]memberUse {
	uses := map[string]memberUse{}
	resp, err := c.Cluster().ListMembers(ctx, &metasrvpb.ListMembersRequest{})
	if err != nil {
		return uses
	}
	for _, m := range resp.GetMembers() {
		if u, err := useOf(ctx, m.GetHttpAddr()); err == nil {
			u.id, u.leader = m.GetId(), m.GetLeader()
			uses[u.id] = u
		}
	}
	return uses
}

func useOf(ctx context.Context, addr string) (memberUse, error) {
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr+"/metrics", nil)
	if err != nil {
		return memberUse{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return memberUse{}, err
	}
	defer resp.Body.Close()
	return readUse(resp.Body)
}

// readUse reads Prometheus' text format.
func readUse(r io.Reader) (memberUse, error) {
	u := memberUse{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		switch name {
		case "process_start_time_seconds":
			u.started = value
		case "process_cpu_seconds_total":
			u.cpuSeconds = value
		case "process_resident_memory_bytes":
			u.resident = uint64(value)
		case "metasrv_leader_terms_total":
			u.terms = value
		case "metasrv_node_failures_total":
			u.failures = value
		}
	}
	return u, lines.Err()
}
