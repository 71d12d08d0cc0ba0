package raftfsm

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// livingTimeout bounds the question whether a member runs.
const livingTimeout = 2 * time.Second

// refuseLiving returns an error if the members that run, and with startable one that could be started, are a majority
// of the cluster: a new life would end every one of them for ever, with what they have acknowledged. It also does
// where one of them is in a later life already.
func (o Offline) refuseLiving(found Found, startable string) error {
	var voters, live []string
	for _, m := range found.Members {
		if m.Voter {
			voters = append(voters, m.Record.GetId())
		}
	}
	for _, answer := range o.askMembers(found.Members) {
		switch id := answer.GetMemberId(); {
		case answer.GetClusterId() != found.ClusterID:
		case answer.GetGeneration() > found.Generation:
			return fmt.Errorf("member %s says that cluster %d was restored or recovered already. Let this member join it with an empty folder under a new id, "+
				"or stop %s first if that was a mistake", id, found.ClusterID, id)
		case answer.GetGeneration() == found.Generation && slices.Contains(voters, id):
			live = append(live, id)
		}
	}
	count := len(live)
	if slices.Contains(voters, startable) {
		count++
	}
	if len(live) == 0 || count < len(voters)/2+1 {
		return nil
	}
	msg := fmt.Sprintf("cluster %d is not lost: of its %d voters these run: %s. A new life of it would end them for ever, with what they alone have",
		found.ClusterID, len(voters), strings.Join(live, ", "))
	if startable != "" {
		msg += fmt.Sprintf(". Start member %s as it is: together they are a majority", startable)
	}
	return fmt.Errorf("%s. To give up what they have all the same, stop them first", msg)
}

// askMembers asks the other members that a state names what they are part of. Those that don't answer are left out.
func (o Offline) askMembers(members []Member) []*peerpb.HistoryResponse {
	network := o.Network
	if network == nil {
		network = TCP{}
	}
	peers := &peerClient{timeout: livingTimeout, idle: make(map[string][]net.Conn), dial: func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := network.Dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write([]byte{protocolPeer}); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}}
	defer peers.close()
	request := &peerpb.Request{Request: &peerpb.Request_History{History: &peerpb.HistoryRequest{MemberId: o.MemberID}}}
	answers := make([]*peerpb.HistoryResponse, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		if m.Record.GetId() == o.MemberID {
			continue
		}
		asked.Go(func() {
			if response, err := peers.ask(context.Background(), m.Record.GetRaftAddr(), request); err == nil {
				answers[i] = response.GetHistory()
			}
		})
	}
	asked.Wait()
	return slices.DeleteFunc(answers, func(a *peerpb.HistoryResponse) bool { return a == nil })
}

// meets reports whether members of before would ask the new life's member what has become of them: they dial the addresses
// that they know.
func (o Offline) meets(found Found) bool {
	return slices.ContainsFunc(found.Members, func(m Member) bool { return m.Record.GetRaftAddr() == o.RaftAddr })
}
