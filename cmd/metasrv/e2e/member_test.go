package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// writer puts keys without a pause and remembers how many were acknowledged.
type writer struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	n    int
}

func startWriter(t *testing.T, cl *client.Client) *writer {
	ctx, cancel := context.WithCancel(t.Context())
	w := &writer{stop: cancel}
	w.wg.Go(func() {
		for ctx.Err() == nil {
			_, err := cl.Store().Put(ctx, &metasrvpb.PutRequest{Key: fmt.Appendf(nil, "w%07d", w.n), Value: []byte("v")})
			switch {
			case err == nil:
				w.n++
			case ctx.Err() == nil:
				t.Errorf("put %d: %v", w.n, err)
				return
			}
		}
	})
	return w
}

// end stops the writer and checks that every acknowledged write is there.
func (w *writer) end(t *testing.T, cl *client.Client) {
	t.Helper()
	w.stop()
	w.wg.Wait()
	if w.n == 0 {
		t.Error("nothing was written")
	}
	answer, err := cl.Store().Range(t.Context(), &metasrvpb.RangeRequest{Key: []byte("w"), RangeEnd: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Kvs) < w.n {
		t.Errorf("%d keys are there, %d were acknowledged", len(answer.Kvs), w.n)
	}
}

// promote promotes a member as soon as it has caught up.
func promote(t *testing.T, cl *client.Client, id string) {
	t.Helper()
	eventually(t, id+" is promoted", func() bool {
		_, err := cl.Maintenance().PromoteMember(t.Context(), &metasrvpb.PromoteMemberRequest{Id: id})
		if err != nil && !errors.Is(err, metasrv.ErrMemberNotCaughtUp) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// A machine is replaced while clients write: its member is killed and its folder is gone. The member is not let in again
// under its id; a new one joins, catches up, votes, and the old one is removed. Then the metasrv leader is removed, which
// hands over first and ends by itself.
func TestMemberIsReplaced(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	w := startWriter(t, cl)
	lost := c.follower()
	c.kill(lost)
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}
	c.start(lost)
	<-lost.done
	if !strings.Contains(lost.log(t), "its data is lost, and it must not vote again") {
		t.Errorf("a member without its data ended with\n%s", lastLines(lost.log(t), 3))
	}

	m4 := c.join("m4")
	eventually(t, "m4 says what it waits for", func() bool {
		return strings.Contains(m4.log(t), "metactl member add m4 --raft-addr "+m4.raft)
	})
	if _, err := cl.Maintenance().AddMember(t.Context(), &metasrvpb.AddMemberRequest{Id: "m4", RaftAddr: m4.raft}); err != nil {
		t.Fatal(err)
	}
	promote(t, cl, "m4")
	if _, err := cl.Maintenance().RemoveMember(t.Context(), &metasrvpb.RemoveMemberRequest{Id: lost.id}); err != nil {
		t.Fatal(err)
	}

	leader := c.leader()
	if _, err := cl.Maintenance().RemoveMember(t.Context(), &metasrvpb.RemoveMemberRequest{Id: leader.id, Shrink: true}); err != nil {
		t.Fatal(err)
	}
	<-leader.done
	if !strings.Contains(leader.log(t), "was removed from the cluster") {
		t.Errorf("a removed member ended with\n%s", lastLines(leader.log(t), 3))
	}
	c.start(leader)
	<-leader.done
	w.end(t, cl)

	members, err := cl.Cluster().ListMembers(t.Context(), &metasrvpb.ListMembersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range members.Members {
		if !m.Voter {
			t.Errorf("%s does not vote", m.Id)
		}
		ids = append(ids, m.Id)
	}
	if len(ids) != 2 || ids[1] != "m4" {
		t.Errorf("the members are %v", ids)
	}
}
