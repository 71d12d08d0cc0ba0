package raftfsm

import (
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
)

func TestShortageOfAMajority(t *testing.T) {
	enough, low, out := voterSpace{id: "e"}, voterSpace{id: "l", level: spaceLow}, voterSpace{id: "o", level: spaceOut}
	silent := voterSpace{id: "s", missed: patientLooks}
	for _, c := range []struct {
		voters []voterSpace
		want   space
		cause  string
	}{
		{[]voterSpace{enough}, spaceEnough, ""},
		{[]voterSpace{enough, enough, out}, spaceEnough, ""},
		{[]voterSpace{enough, low, low}, spaceLow, "the disk of member l is full, the disk of member l is full"},
		{[]voterSpace{enough, low, out}, spaceLow, "the disk of member l is full, the disk of member o is full"},
		{[]voterSpace{enough, out, out}, spaceOut, "the disk of member o is full, the disk of member o is full"},
		{[]voterSpace{enough, silent, out}, spaceOut, "the disk of member o is full, member s does not answer"},
		{[]voterSpace{enough, silent, silent}, spaceEnough, ""},
		{[]voterSpace{enough, out}, spaceOut, "the disk of member o is full"},
		{[]voterSpace{enough, enough, out, out}, spaceOut, "the disk of member o is full, the disk of member o is full"},
	} {
		got := shortage{}
		if s := shortageOf(c.voters); s != nil {
			got = *s
		}
		if got.level != c.want || got.cause != c.cause {
			t.Errorf("%v: %v, want level %d for %q", c.voters, got, c.want, c.cause)
		}
	}
}

// A metasrv leader with space refuses, by the true reason, what a majority could not store. Reads go on, and writes do by
// themselves once there is space.
func TestWritesAreRefusedWhereNoMajorityHasSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free [3]atomic.Uint64
		c := clusterOnDisks(t, &free)
		at, leader := c.leader()
		b, d := (at+1)%3, (at+2)%3
		l, _ := leader.Leadership()
		duty := putProposal("duty", "1")
		duty.PlannedTerm = l.Term
		refused := func(from space) func() bool {
			return func() bool { return leader.majoritySpace.full(from) != nil }
		}
		free[b].Store(100 << 20)
		time.Sleep(3 * spacePeriod) // simulated
		mustPut(t, leader, "one of three is full")
		free[d].Store(100 << 20)
		eventually(t, "the shortage is known", refused(spaceLow))
		_, err := put(within(t, time.Minute), leader, "refused", "1")
		if !errors.Is(err, metasrv.ErrDiskFull) || !strings.Contains(err.Error(), "member "+c.servers[b].ID+" is full") {
			t.Errorf("a write that no majority has space for ended with %v; want ErrDiskFull that names the members", err)
		}
		if _, err := leader.Propose(within(t, time.Minute), duty); err != nil {
			t.Errorf("a duty in the space that is kept for it: %v", err)
		}
		free[b].Store(1 << 20)
		free[d].Store(1 << 20)
		eventually(t, "the end of the reserves is known", refused(spaceOut))
		if _, err := leader.Propose(within(t, time.Minute), duty); !errors.Is(err, metasrv.ErrDiskFull) {
			t.Errorf("a duty without space: %v", err)
		}
		if view, err := leader.Barrier(within(t, time.Minute)); err != nil || get(view, "refused") != "<absent>" {
			t.Errorf("a read without space: %v", err)
		}
		free[b].Store(1 << 30)
		eventually(t, "writes go on", func() bool {
			_, err := put(within(t, time.Minute), leader, "after", "v")
			return err == nil
		})
		if now, leads := leader.Leadership(); !leads || now.Term != l.Term {
			t.Errorf("the leadership of term %d was lost", l.Term)
		}
	})
}

// Where the disks of those that are left are full nobody is elected, and they say why.
func TestShortageIsKnownWhereNobodyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free [3]atomic.Uint64
		c := clusterOnDisks(t, &free)
		at, _ := c.leader()
		left := []int{(at + 1) % 3, (at + 2) % 3}
		for _, i := range left {
			free[i].Store(0)
			c.nodes[i].disk.ranOut()
		}
		c.stop(at)
		for _, i := range left {
			eventually(t, "the shortage is known", func() bool { return c.nodes[i].Shortage() != nil })
			err := c.nodes[i].Shortage()
			for _, full := range left {
				if !errors.Is(err, metasrv.ErrDiskFull) || !strings.Contains(err.Error(), "the disk of member "+c.servers[full].ID+" is full") {
					t.Errorf("member %s says %v", c.servers[i].ID, err)
				}
			}
		}
		for _, i := range left {
			free[i].Store(1 << 30)
		}
		c.leader()
	})
}

// The disks of both followers are really full: what comes then is refused at once, whether the metasrv leader stays or is lost
// because its followers are busy with their disks, and all of it goes on when there is space.
func TestFullDisksOfBothFollowers(t *testing.T) { onEachLog(t, fullDisksOfBothFollowers) }

func fullDisksOfBothFollowers(t *testing.T, keepLog func(*Config)) {
	disk := smallDisk(t, 64<<20)
	const roomy = 0
	c := newCluster(t, 3, func(c *cluster) {
		c.timing.Flush = 50 * time.Millisecond
		c.configure = func(i int, cfg *Config) {
			keepLog(cfg)
			if i != roomy {
				cfg.DataDir = filepath.Join(disk, cfg.MemberID)
			}
		}
	})
	_, leader := c.leader()
	eventually(t, "the member with space leads", func() bool {
		_, err := leader.TransferLeadership(within(t, 10*time.Second), c.servers[roomy].ID)
		_, leader = c.leader()
		return err == nil && leader == c.nodes[roomy]
	})
	empty := fill(t, disk, 128<<10)
	value := strings.Repeat("x", 256<<10) // a segment of a WAL has its space from the start
	acknowledged, i := map[string]bool{}, 0
	write := func(n *Node) error {
		i++
		_, err := put(within(t, time.Second), n, key(i), value)
		if err == nil {
			acknowledged[key(i)] = true
		}
		return err
	}
	eventually(t, "writes are refused for the full disks", func() bool {
		err := write(c.nodes[roomy])
		return errors.Is(err, metasrv.ErrDiskFull) || errors.Is(err, metasrv.ErrNotLeader) && errors.Is(c.nodes[roomy].Shortage(), metasrv.ErrDiskFull)
	})
	empty()
	eventually(t, "writes go on without a restart", func() bool {
		_, leader := c.leader()
		return write(leader) == nil
	})
	for _, n := range c.nodes {
		if n.Err() != nil {
			t.Errorf("member %s ended: %v", n.cfg.MemberID, n.Err())
		}
		eventually(t, "a member has every acknowledged write", func() bool {
			for key := range acknowledged {
				if get(n.View(), key) != value {
					return false
				}
			}
			return true
		})
	}
}
