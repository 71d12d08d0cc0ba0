package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/client/clienttest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Watchers of everything on a member go through the install of a snapshot while clients write: what each of them tells,
// before the install and after it, is what a watcher told whose member never lagged, no change less and none twice.
func TestWatchesAcrossASnapshotInstall(t *testing.T) {
	c := prepareCluster(t, t.TempDir(), "--log-entries", "256")
	l := newLinks(t, c.members)
	for _, m := range c.members {
		c.start(m)
		l.Started(m.id, m.cmd.Process.Pid)
		c.connect(m)
	}
	t.Cleanup(c.end)
	leader, behind, cl := c.leader(), c.follower(), c.client()
	nodes := c.datanodes(cl, 2)

	ctx, stop := context.WithCancel(t.Context())
	var watching, loading sync.WaitGroup
	defer watching.Wait()
	defer loading.Wait()
	defer stop()
	reach := func(what string, w topics, lives int, revision uint64) {
		t.Helper()
		eventually(t, what, func() bool {
			n, upTo := w.reached()
			return n >= lives && upTo >= revision
		})
	}
	whole := watchAll(ctx, t, leader, 0, &watching)
	reach("the watches on the metasrv leader have begun", whole, 1, 1)
	lagging := watchAll(ctx, t, behind, written(t, cl), &watching)
	load, endLoad := context.WithCancel(ctx)
	defer endLoad()
	loadAll(load, t, cl, nodes, &loading)
	// The feed remembers more revisions than the follower will lack: it must forget them all the same.
	reach("the watches follow", lagging, 1, written(t, cl)+3000)

	cut(c, behind, l.Hold)
	status, err := metasrvpb.NewClusterClient(behind.conn).Status(t.Context(), &metasrvpb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the metasrv leader has dropped what the follower lacks", func() bool {
		return droppedUpTo(leader.log(t)) > status.AppliedIndex+256 // the follower may have received some more
	})
	cut(c, behind, l.Release)
	l.Reset(behind.id)
	reach("the watches have begun again", lagging, 2, 0)
	reach("the watches follow after the install", lagging, 2, written(t, cl)+100)
	endLoad()
	loading.Wait()
	last := written(t, cl)
	reach("the watches have told everything", lagging, 2, last)
	reach("the watches on the metasrv leader have told everything", whole, 1, last)
	stop()
	watching.Wait()
	for topic, w := range lagging {
		t.Run(topic, func(t *testing.T) { w.check(t, whole[topic]) })
	}
}

// cut does something with each link of a member.
func cut(c *cluster, m *member, with func(from, to string)) {
	for _, other := range c.members {
		if other != m {
			with(other.id, m.id)
			with(m.id, other.id)
		}
	}
}

// droppedUpTo returns the last entry that the log of a member was shortened by, as its messages say.
func droppedUpTo(messages string) (index uint64) {
	for _, line := range strings.Split(messages, "\n") {
		if _, after, found := strings.Cut(line, "raft: compacting logs"); found {
			for _, field := range strings.Fields(after) {
				if n, err := strconv.ParseUint(strings.TrimPrefix(field, "to="), 10, 64); err == nil {
					index = n
				}
			}
		}
	}
	return index
}

// written returns the revision of a write.
func written(t *testing.T, cl *client.Client) uint64 {
	t.Helper()
	answer, err := cl.Store().Put(t.Context(), &metasrvpb.PutRequest{Key: []byte("mark")}, client.Once())
	if err != nil {
		t.Fatal(err)
	}
	return answer.Header.Revision
}

// loadAll changes all that can be watched until ctx ends.
func loadAll(ctx context.Context, t *testing.T, cl *client.Client, nodes map[uint64]*clienttest.Datanode, wg *sync.WaitGroup) {
	repeat := func(what string, do func(i int) error) {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := do(i); err != nil && ctx.Err() == nil {
					t.Errorf("%s %d: %v", what, i, err)
				}
			}
		})
	}
	for w := range 4 {
		repeat("write", func(i int) error {
			key := fmt.Appendf(nil, "k%d_%d", w, i%7)
			if i%5 == 4 {
				_, err := cl.Store().DeleteRange(ctx, &metasrvpb.DeleteRangeRequest{Key: key})
				return err
			}
			_, err := cl.Store().Put(ctx, &metasrvpb.PutRequest{Key: key, Value: fmt.Append(nil, i)}, client.Once())
			return err
		})
	}
	repeat("table", func(i int) error {
		name := fmt.Sprintf("t%d", i)
		if _, err := clienttest.CreateTable(ctx, cl, nodes, clienttest.HashTable(name, 2, 1)); err != nil || i%2 == 0 {
			return err
		}
		_, err := cl.Router().Delete(ctx, &metasrvpb.DeleteRequest{TableName: clienttest.TableName(name)})
		return err
	})
	repeat("frontend", func(i int) error { return register(ctx, cl, uint64(100+i%5)) })
}

// register has a frontend register anew.
func register(ctx context.Context, cl *client.Client, id uint64) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	return client.NewHeartbeatTask(cl, client.HeartbeatConfig{
		Peer:         &metasrvpb.Peer{Id: id, Addr: fmt.Sprintf("127.0.0.1:%d", 10_000+id)},
		NodeInfo:     &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_FRONTEND},
		OnRegistered: func(uint64) { end() },
	}).Run(ctx)
}
