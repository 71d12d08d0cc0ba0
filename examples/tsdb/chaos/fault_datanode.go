package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

// datanodeFaults are what happens to datanodes. Half of those that last end before the lease of 3 s, half behind it.
var datanodeFaults = []fault{
	{"kill datanode", 4, onDatanode(func(ctx context.Context, f *faults, d *local.Datanode, r *rand.Rand) string {
		away := between(r, 0, 7*time.Second)
		d.Process.Kill()
		sleep(ctx, away)
		f.restart(d)
		return fmt.Sprintf("%s was away for %s", datanodeName(d), away)
	})},
	{"stop datanode", 1, onDatanode(func(ctx context.Context, f *faults, d *local.Datanode, r *rand.Rand) string {
		away := between(r, 0, 5*time.Second)
		if err := d.Process.Stop(); err != nil {
			f.violated(err)
		}
		sleep(ctx, away)
		f.restart(d)
		return fmt.Sprintf("%s ended in order, and was away for %s", datanodeName(d), away)
	})},
	{"pause datanode", 4, onDatanode(func(ctx context.Context, _ *faults, d *local.Datanode, r *rand.Rand) string {
		lasts := between(r, 100*time.Millisecond, 7*time.Second)
		d.Process.Pause()
		sleep(ctx, lasts)
		d.Process.Resume()
		return fmt.Sprintf("%s stood still for %s", datanodeName(d), lasts)
	})},
	{"cut datanode from metasrv", 3, onDatanode(func(ctx context.Context, f *faults, d *local.Datanode, r *rand.Rand) string {
		lasts := between(r, 500*time.Millisecond, 8*time.Second)
		ways := []string{"both ways", "to it", "from it"}
		way := r.IntN(len(ways))
		f.cut(ctx, lasts, datanodeName(d), f.memberNames(), way != 1, way != 2)
		return fmt.Sprintf("%s for %s, %s", datanodeName(d), lasts, ways[way])
	})},
	{"cut datanode from the others", 3, onDatanode(func(ctx context.Context, f *faults, d *local.Datanode, r *rand.Rand) string {
		lasts := between(r, 500*time.Millisecond, 8*time.Second)
		var others []string
		for _, o := range f.cluster.Datanodes {
			others = append(others, datanodeName(o))
		}
		for _, o := range f.cluster.Frontends {
			others = append(others, frontendName(o))
		}
		f.cut(ctx, lasts, datanodeName(d), others, true, true)
		return fmt.Sprintf("%s from datanodes and frontends, not from metasrv, for %s", datanodeName(d), lasts)
	})},
	{"cut two datanodes", 2, onDatanode(func(ctx context.Context, f *faults, d *local.Datanode, r *rand.Rand) string {
		lasts := between(r, 500*time.Millisecond, 8*time.Second)
		other := f.cluster.Datanodes[r.IntN(len(f.cluster.Datanodes))]
		oneWay := r.IntN(2) == 0
		if other == d {
			return ""
		}
		f.cut(ctx, lasts, datanodeName(d), []string{datanodeName(other)}, true, !oneWay)
		return fmt.Sprintf("%s and %s for %s, one way: %t", datanodeName(d), datanodeName(other), lasts, oneWay)
	})},
	{"reset connections", 1, onDatanode(func(_ context.Context, f *faults, d *local.Datanode, _ *rand.Rand) string {
		f.links.Reset(datanodeName(d))
		return datanodeName(d)
	})},
	{"empty disk", 2, func(ctx context.Context, f *faults, r *rand.Rand) string {
		f.disks.Lock()
		defer f.disks.Unlock()
		d := f.take(r)
		if d == nil {
			return ""
		}
		defer f.give(d)
		return f.emptyDisk(ctx, d)
	}},
}

// onDatanode makes a fault of something that happens to one datanode.
func onDatanode(
	do func(context.Context, *faults, *local.Datanode, *rand.Rand) string,
) func(context.Context, *faults, *rand.Rand) string {
	return func(ctx context.Context, f *faults, r *rand.Rand) string {
		f.disks.RLock()
		defer f.disks.RUnlock()
		d := f.take(r)
		if d == nil {
			return ""
		}
		defer f.give(d)
		return do(ctx, f, d, r)
	}
}

func (f *faults) restart(d *local.Datanode) {
	if err := f.startDatanode(d); err != nil {
		f.violated(err)
	}
}

func (f *faults) memberNames() []string {
	var names []string
	for _, m := range f.cluster.Members {
		names = append(names, m.ID)
	}
	return names
}

// cut holds back what a process sends to others, what they send to it, or both. Half of the cuts break the connections
// at their end, so that what was held is lost; else it arrives late.
func (f *faults) cut(ctx context.Context, lasts time.Duration, name string, others []string, to, from bool) {
	for _, o := range others {
		if to {
			f.links.Hold(name, o)
		}
		if from {
			f.links.Hold(o, name)
		}
	}
	sleep(ctx, lasts)
	if lasts.Milliseconds()%2 == 0 {
		f.links.Reset(name)
	}
	for _, o := range others {
		f.links.Release(name, o)
		f.links.Release(o, name)
	}
}

// emptyDisk gives a datanode an empty disk, unless an acknowledged row may be on it alone. The node is down before it is
// asked who else has its regions, and leads none of them any more: so it can't have them to itself meanwhile.
func (f *faults) emptyDisk(ctx context.Context, d *local.Datanode) string {
	d.Process.Kill()
	defer f.restart(d)
	for deadline := time.Now().Add(10 * time.Second); ; {
		why := f.alone(ctx, d)
		if why == "" {
			break
		}
		if time.Now().After(deadline) || !sleep(ctx, 200*time.Millisecond) {
			f.out.Print("  empty disk: %s keeps its disk: %s", datanodeName(d), why)
			return ""
		}
	}
	if err := os.RemoveAll(d.Dir); err != nil {
		f.violated(err)
	}
	return datanodeName(d)
}

// alone says why a datanode may have the only copy of a row, empty where it has not: each of its regions is led by
// another node, and leaders are in sync.
func (f *faults) alone(ctx context.Context, d *local.Datanode) string {
	regions, err := f.regions(ctx)
	if err != nil {
		return "metasrv does not answer: " + err.Error()
	}
	for _, r := range regions {
		if !hasReplica(r, d.ID) {
			continue
		}
		if leader := leaderOf(r); leader == nil || !leader.GetInSync() || leader.GetLost() || leader.GetPeer().GetId() == d.ID {
			return fmt.Sprintf("region %d is not led by another node", r.GetRegionId())
		}
	}
	return ""
}
