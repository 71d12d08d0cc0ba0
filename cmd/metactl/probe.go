package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// answer is what one endpoint said of itself.
type answer struct {
	endpoint string
	// id is that of the member at the endpoint, empty where nobody has said it.
	id     string
	status *metasrvpb.StatusResponse
	err    error
}

func checkEndpoint(e string) error {
	host, port, err := net.SplitHostPort(e)
	switch {
	case strings.Contains(e, "://"):
		return usagef("endpoint %q has a scheme; host:port is enough", e)
	case err != nil || port == "":
		return usagef("endpoint %q is not host:port; the gRPC port of metasrv is 3002", e)
	case host == "":
		return usagef("endpoint %q has no host", e)
	}
	return nil
}

// askAll asks every endpoint for its own status, all at once, and returns the answers in the same order.
func askAll(ctx context.Context, endpoints []string) []answer {
	answers := make([]answer, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			answers[i].endpoint = e
			answers[i].status, answers[i].err = ask(ctx, e)
		})
	}
	wg.Wait()
	return answers
}

func ask(ctx context.Context, endpoint string) (*metasrvpb.StatusResponse, error) {
	// The address as it is given: a resolver or a proxy between could ask another member.
	conn, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return metasrvpb.NewClusterClient(conn).Status(ctx, &metasrvpb.StatusRequest{
		Header: &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE},
	})
}

// askCluster asks the endpoints and the members that they name. Sorted: the answers first, by member.
func askCluster(ctx context.Context, endpoints []string) []answer {
	answers := askAll(ctx, endpoints)
	known := map[string]bool{}
	for _, a := range answers {
		known[a.endpoint] = true
		known[a.status.GetMember().GetGrpcAddr()] = true
	}
	var more []string
	ids := map[string]string{}
	for _, m := range membersOf(ctx, answers) {
		addr := m.GetGrpcAddr()
		ids[addr] = m.GetId()
		if addr != "" && !known[addr] {
			known[addr] = true
			more = append(more, addr)
		}
	}
	answers = append(answers, askAll(ctx, more)...)
	for i, a := range answers {
		answers[i].id = cmp.Or(a.status.GetMember().GetId(), ids[a.endpoint])
	}
	slices.SortStableFunc(answers, func(a, b answer) int {
		if c := cmp.Compare(btoi(a.err != nil), btoi(b.err != nil)); c != 0 {
			return c
		}
		return cmp.Compare(a.id, b.id)
	})
	// An address and an alias of it are one member.
	return slices.CompactFunc(answers, func(a, b answer) bool {
		return a.err == nil && b.err == nil && a.id == b.id && a.id != ""
	})
}

// membersOf returns the members that the first endpoint with an answer knows.
func membersOf(ctx context.Context, answers []answer) []*metasrvpb.Member {
	for _, a := range answers {
		if a.err != nil {
			continue
		}
		conn, err := grpc.NewClient("passthrough:///"+a.endpoint,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			continue
		}
		resp, err := metasrvpb.NewClusterClient(conn).ListMembers(ctx, &metasrvpb.ListMembersRequest{
			Header: &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE},
		})
		conn.Close()
		if err == nil {
			return resp.Members
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// reach returns nil as soon as one endpoint takes a connection, else what each said, or that ctx has ended: then
// it is not known what they would have said. The client library would go on trying until the time is up.
func reach(ctx context.Context, endpoints []string) error {
	errs := make([]error, len(endpoints))
	reached, cancel := context.WithCancel(ctx)
	defer cancel()
	var accepted atomic.Bool
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			var d net.Dialer
			conn, err := d.DialContext(reached, "tcp", e)
			if err != nil {
				errs[i] = err
				return
			}
			conn.Close()
			accepted.Store(true)
			cancel()
		})
	}
	wg.Wait()
	switch {
	case accepted.Load():
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	un := &unreachableError{}
	for i, e := range endpoints {
		un.answers = append(un.answers, answer{endpoint: e, err: errs[i]})
	}
	return un
}

// unreachableError says that no endpoint answered.
type unreachableError struct{ answers []answer }

func (e *unreachableError) Error() string { return "no metasrv answered" }

const (
	refused = "connection refused: nothing listens there"
	tooLate = "no answer in time"
)

// why returns the part of a connection error that a person needs.
func why(err error) string {
	if err == nil {
		return ""
	}
	msg := err.Error()
	if st, ok := status.FromError(err); ok {
		msg = st.Message()
		switch st.Code() {
		case codes.DeadlineExceeded:
			return tooLate
		case codes.Unimplemented:
			return "answers, but is no metasrv"
		}
	}
	for _, known := range []struct{ part, says string }{
		{"connection refused", refused},
		{"connection reset", "closed the connection"},
		{"no such host", "no such host"},
		{"i/o timeout", tooLate},
		{"deadline exceeded", tooLate},
		{"no route to host", "no route to host"},
		{"network is unreachable", "network is unreachable"},
		{"error reading server preface", "answers, but doesn't speak gRPC: is it the HTTP or the raft port?"},
		{"failed to read server preface", "answers, but doesn't speak gRPC: is it the HTTP or the raft port?"},
	} {
		if strings.Contains(msg, known.part) {
			return known.says
		}
	}
	return msg
}

// inTime is false where the endpoint was not given the time that its answer needs, so that nothing is known of it.
func (a answer) inTime() bool { return why(a.err) != tooLate }

// describe returns what an endpoint said of itself in one line.
func (a answer) describe() string {
	if a.err != nil {
		return why(a.err)
	}
	m, leader := a.status.GetMember(), a.status.GetLeader()
	says := fmt.Sprintf("%s, %s in term %d", m.GetId(), a.role(), a.status.GetTerm())
	switch {
	case leader == nil:
		return says + ", knows no metasrv leader"
	case leader.GetId() != m.GetId():
		return says + ", follows " + leader.GetId()
	case !a.status.GetLeaderReady():
		return says + ", still taking over"
	}
	return says
}

func (a answer) role() string {
	m := a.status.GetMember()
	leads := a.status.GetLeader().GetId() == m.GetId() && m.GetId() != ""
	return memberRole(&metasrvpb.Member{Leader: leads, Voter: m.GetVoter()})
}
