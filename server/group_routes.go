package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// followWriters makes the routes name the writers of groups as those who lead the regions there, until ctx ends.
func (d *duties) followWriters(ctx context.Context, t *term, log *slog.Logger) {
	f := &writerFollower{duties: d, term: t, log: log}
	for ctx.Err() == nil {
		err := f.advance(ctx)
		if err == nil {
			err = f.lead(ctx)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		log.Error("routes could not be brought to the writers of groups", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(dutyRetry):
		}
	}
}

// writerFollower keeps the tables that have replicas on nodes of groups.
type writerFollower struct {
	*duties
	term *term
	log  *slog.Logger

	// revision is the one up to which tables is complete, 0 before it was first.
	revision uint64
	tables   map[metasrv.TableID]struct{}
	// due are to be compared with the writers.
	due map[metasrv.TableID]struct{}
}

// advance takes in what has changed in the state. It waits until something has, unless tables are due.
func (f *writerFollower) advance(ctx context.Context) error {
	if f.tables == nil {
		return f.count()
	}
	if len(f.due) > 0 {
		return nil
	}
	revisions, err := f.node.Read(ctx, f.revision+1)
	if errors.Is(err, metasrv.ErrCompacted) {
		return f.count()
	}
	if err != nil {
		return err
	}
	view := f.node.View()
	anyGroup := heartbeat.AnyGroup(view)
	for _, r := range revisions {
		if anew, err := f.change(view, anyGroup, r.Changes); err != nil || anew {
			f.tables = nil
			return err
		}
		f.revision = r.Number
	}
	return nil
}

// count looks at all routes. Where there is no group, no table is on one.
func (f *writerFollower) count() error {
	view := f.node.View()
	f.tables, f.due = make(map[metasrv.TableID]struct{}), make(map[metasrv.TableID]struct{})
	f.revision = view.Revision()
	if !heartbeat.AnyGroup(view) {
		return nil
	}
	grouped := groupedIn(view)
	return router.Placed(view, func(table metasrv.TableID, nodes []metasrv.NodeID) {
		if slices.ContainsFunc(nodes, grouped) {
			f.tables[table], f.due[table] = struct{}{}, struct{}{}
		}
	})
}

// groupedIn returns the function that says whether a node is in a group. Each is looked up once.
func groupedIn(view state.View) func(metasrv.NodeID) bool {
	known := make(map[metasrv.NodeID]bool)
	return func(id metasrv.NodeID) bool {
		in, ok := known[id]
		if !ok {
			in = heartbeat.RegistrationIn(heartbeat.Value(view, id)).Group != ""
			known[id] = in
		}
		return in
	}
}

// change notes the changes of one revision; anew says that all routes must be looked at again. A group begins with its first
// node, which has all looked at anew: until there is one, tables are not looked at.
func (f *writerFollower) change(view state.View, anyGroup bool, changes []state.Change) (anew bool, err error) {
	for i := range changes {
		if strings.HasPrefix(changes[i].Key, heartbeat.GroupPrefix) {
			for table := range f.tables {
				f.due[table] = struct{}{}
			}
		}
		before, after, ok, err := heartbeat.Changed(&changes[i])
		if err != nil || ok && before.GetInfo().GetGroup() != after.GetInfo().GetGroup() {
			return true, err
		}
	}
	if !anyGroup {
		return false, nil
	}
	grouped := groupedIn(view)
	return false, router.Concerned(view, changes, func(table metasrv.TableID, nodes []metasrv.NodeID) {
		if slices.ContainsFunc(nodes, grouped) {
			f.tables[table], f.due[table] = struct{}{}, struct{}{}
		} else {
			delete(f.tables, table)
		}
	})
}

// lead proposes that the writers lead the regions of the tables that are due.
func (f *writerFollower) lead(ctx context.Context) error {
	if len(f.due) == 0 {
		return nil
	}
	view := f.node.View()
	if quarantined(view) != nil {
		select {
		case <-ctx.Done():
		case <-time.After(dutyRetry):
		}
		return nil
	}
	cmd := &storagepb.ChangeRegions{}
	for table := range f.due {
		changes, err := router.WriterChanges(view, heartbeat.Registration, table)
		if err != nil {
			return err
		}
		for len(changes) > 0 {
			n := min(len(changes), router.MaxRegionChanges-len(cmd.Changes))
			cmd.Changes, changes = append(cmd.Changes, changes[:n]...), changes[n:]
			if len(cmd.Changes) == router.MaxRegionChanges {
				if err := f.changeRegions(ctx, cmd); err != nil {
					return err
				}
			}
		}
	}
	if len(cmd.Changes) > 0 {
		if err := f.changeRegions(ctx, cmd); err != nil {
			return err
		}
	}
	// A change that was refused, because its region changed first, comes back with that change.
	clear(f.due)
	return nil
}

// changeRegions proposes what was collected, and empties it.
func (f *writerFollower) changeRegions(ctx context.Context, cmd *storagepb.ChangeRegions) error {
	err := f.propose(ctx, f.term.leadership, storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, cmd)
	if err != nil {
		return err
	}
	f.log.Info("regions are led by the writers of their groups", "regions", len(cmd.Changes))
	proto.Reset(cmd)
	return nil
}
