package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Offline is for a member that doesn't run: it makes a data folder with which another life of a cluster begins, as a
// cluster of this one member.
type Offline struct {
	MemberID string
	// RaftAddr is the address at which other members will dial the member.
	RaftAddr string
	// DataDir is the folder.
	DataDir  string
	Appliers []state.Applier
	// LogStore says how a restored member keeps its log; a recovered one goes on as it did.
	LogStore LogStore
	// Network reaches the other members, to ask whether they run; TCP by default.
	Network Network
	// Adopters raise what the packages have given out to the outside world.
	Adopters []func(state.Tx) error
}

// Found is what an offline command has found, before it changes anything.
type Found struct {
	ClusterID, Generation uint64
	// Index, Term and Revision are those of the state.
	Index, Term, Revision uint64
	// Keys is the number of pairs.
	Keys int
	// Replayed entries are in the log behind the image. All are taken, also those that no majority may have had.
	Replayed uint64
	// LastAt is the wall time at which the last entry was written, by the clock of the metasrv leader of then; zero where
	// it is not known.
	LastAt time.Time
	// Members are those of the cluster as it was.
	Members []Member
	// LogStore says how the member keeps its log, which it has to be started with.
	LogStore LogStore
}

// Restore makes a data folder, which must be absent or empty, from a snapshot. It refuses to where the member would have
// the address of one of before, and a majority of those runs.
func (o Offline) Restore(r io.Reader, origin string) (Found, error) {
	if err := mustBeEmpty(o.DataDir); err != nil {
		return Found{}, err
	}
	a, err := readState(r)
	if err != nil {
		return Found{}, err
	}
	found := foundIn(a)
	found.LogStore = o.LogStore
	if o.meets(found) {
		if err := o.refuseLiving(found, ""); err != nil {
			return found, err
		}
	}
	making := filepath.Clean(o.DataDir) + ".restoring"
	if err := os.RemoveAll(making); err != nil {
		return found, err
	}
	if err := o.begin(making, a, origin, false); err != nil {
		return found, errors.Join(err, os.RemoveAll(making))
	}
	if err := os.Remove(o.DataDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return found, err
	}
	if err := os.Rename(making, o.DataDir); err != nil {
		return found, err
	}
	return found, syncDir(filepath.Dir(filepath.Clean(o.DataDir)))
}

// readState returns the state that a snapshot holds.
func readState(r io.Reader) (*applied, error) {
	var meta *storagepb.ImageMeta
	var err error
	read := machine.NewView(machine.Position{}, func(yield func(string, []byte) bool) {
		err = snapshot.Read(r, func(m *storagepb.ImageMeta) error { meta = m; return nil }, func(key, value []byte) error {
			if !yield(string(key), value) {
				return errors.New("not reached")
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if need := read.ClusterVersion(); need > machine.EntryVersion {
		return nil, &machine.TooOldError{Need: need, Known: machine.EntryVersion}
	}
	a := &applied{
		view:          machine.NewView(positionOf(meta), read.Ascend("", "")),
		configuration: configurationOf(meta), configurationIndex: meta.ConfigurationIndex,
	}
	if err := checkHash(meta, a.view.Hash()); err != nil {
		return nil, fmt.Errorf("%w: %w", snapshot.ErrDamaged, err)
	}
	return a, nil
}

func mustBeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty (it has %s): a snapshot is restored into a new folder only", dir, entries[0].Name())
	}
	return err
}

// Recover makes a cluster of one member out of a member whose cluster has lost its majority. It refuses to where this one
// and those that run are a majority, or where another one has been recovered before. confirm is asked before
// anything is changed. The files as they were are kept in the folder that is returned.
func (o Offline) Recover(origin string, confirm func(Found) error) (found Found, kept string, err error) {
	if err := checkSwapped(o.DataDir); err != nil {
		return found, "", err
	}
	if err := checkKinds(o.DataDir); err != nil {
		return found, "", err
	}
	kind, there, err := logOf(o.DataDir)
	if err != nil || !there {
		return found, "", errors.Join(err, fmt.Errorf("%s holds no log of a member", o.DataDir))
	}
	o.LogStore = kind
	a, found, err := o.replay()
	if err != nil {
		return found, "", err
	}
	found.LogStore = kind
	if err := o.refuseLiving(found, o.MemberID); err != nil {
		return found, "", err
	}
	if err := confirm(found); err != nil {
		return found, "", err
	}
	// What an earlier call was making when it was interrupted is of no use: nothing had been moved.
	making := filepath.Join(o.DataDir, swappedFolder+".part")
	if err := os.RemoveAll(making); err != nil {
		return found, "", err
	}
	if err := o.begin(making, a, origin, true); err != nil {
		return found, "", errors.Join(err, os.RemoveAll(making))
	}
	kept = filepath.Join(o.DataDir, "before-recovery-"+time.Now().UTC().Format("20060102T150405Z"))
	return found, kept, swapFiles(o.DataDir, making, kept)
}

// swappedFolder is in a data folder while the files of another life take the place of those that are there.
const swappedFolder = "recovering"

// checkSwapped returns an error if that was interrupted: the files in a folder may be of two lives, or missing.
func checkSwapped(dir string) error {
	swapped := filepath.Join(dir, swappedFolder)
	if there, err := exists(swapped); err != nil || !there {
		return err
	}
	return fmt.Errorf("%s is there: a recovery was interrupted while it replaced files. Move the files of the newest before-recovery-… "+
		"folder back into %s, in the place of those that have their names, remove %s, and run metasrv recover again", swapped, dir, swapped)
}

// swapFiles puts the files that are ready in one folder in the place of those in dir, which go to another one.
func swapFiles(dir, ready, kept string) error {
	from := filepath.Join(dir, swappedFolder)
	if err := os.Mkdir(kept, 0o700); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(ready, from), syncDir(dir)); err != nil {
		return err
	}
	for _, move := range [][2]string{{dir, kept}, {from, dir}} {
		for _, name := range memberNames {
			err := os.Rename(filepath.Join(move[0], name), filepath.Join(move[1], name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return errors.Join(os.Remove(from), syncDir(kept), syncDir(dir))
}

// replay returns the state that a member has in its image and in its log behind it.
func (o Offline) replay() (a *applied, found Found, err error) {
	var failure error
	fail := func(err error) { failure = errors.Join(failure, err) }
	cfg := Config{MemberID: o.MemberID, DataDir: o.DataDir, Appliers: o.Appliers, LogStore: o.LogStore, Member: &storagepb.MemberRecord{RaftAddr: o.RaftAddr}}
	cfg.setDefaults()
	cfg.Timing.Flush, cfg.Timing.FlushBytes = time.Hour, 1<<40 // nothing is written
	n := &Node{cfg: cfg, log: cfg.Logger, failed: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer n.cancel()
	defer func() {
		if n.flusher != nil {
			err = errors.Join(err, n.flusher.close(true))
		}
		if n.store != nil {
			err = errors.Join(err, n.store.Close())
		}
	}()
	if err := n.openStores(); err != nil {
		return nil, found, err
	}
	n.fsm.fail, n.store.fail, n.flusher.fail = fail, fail, fail
	from := n.fsm.current.index()
	last, err := n.store.LastIndex()
	if err != nil {
		return nil, found, err
	}
	var entry raft.Log
	for i := from + 1; i <= last && failure == nil; i++ {
		entry = raft.Log{}
		if err := n.replayEntry(i, &entry); err != nil {
			return nil, found, err
		}
	}
	if failure != nil {
		return nil, found, failure
	}
	a = n.fsm.current.Load()
	found = foundIn(a)
	found.LastAt, found.Replayed = entry.AppendedAt, max(last, from)-from
	// The new life begins behind everything that this member has seen.
	term, err := n.store.GetUint64(keyCurrentTerm)
	if err != nil {
		return nil, found, err
	}
	pos := a.view.Position()
	pos.Index, pos.Term = max(pos.Index, last), max(pos.Term, term)
	return &applied{view: machine.NewView(pos, a.view.Ascend("", "")), configuration: a.configuration, configurationIndex: a.configurationIndex}, found, nil
}

// replayEntry reads an entry of the log and executes it.
func (n *Node) replayEntry(index uint64, entry *raft.Log) error {
	if err := n.store.GetLog(index, entry); err != nil {
		return err
	}
	switch entry.Type {
	case raft.LogCommand:
		n.fsm.Apply(entry)
	case raft.LogConfiguration:
		n.fsm.StoreConfiguration(index, raft.DecodeConfiguration(entry.Data))
	}
	return nil
}

func foundIn(a *applied) Found {
	pos, cluster := a.view.Position(), machine.Cluster(a.view)
	found := Found{
		ClusterID: cluster.GetClusterId(), Generation: cluster.GetGeneration(),
		Index: pos.Index, Term: pos.Term, Revision: pos.Revision, Keys: a.view.Len(),
	}
	for _, s := range a.configuration.Servers {
		record, known := machine.Member(a.view, string(s.ID))
		if !known {
			record = &storagepb.MemberRecord{Id: string(s.ID), RaftAddr: string(s.Address)}
		}
		found.Members = append(found.Members, Member{Record: record, Voter: isVoter(s)})
	}
	return found
}

// begin writes a folder with which another life of the cluster begins.
func (o Offline) begin(dir string, from *applied, origin string, keepIDs bool) error {
	incarnation := randomID()
	view, err := machine.Adopt(from.view, machine.Adoption{
		Incarnation: incarnation, Member: o.MemberID, KeepIDs: keepIDs,
		Origin: origin, WallTimeMs: time.Now().UnixMilli(), Adopters: o.Adopters,
	})
	if err != nil {
		return err
	}
	pos := view.Position()
	a := &applied{
		view: view, configurationIndex: pos.Index,
		configuration: raft.Configuration{Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: raft.ServerID(o.MemberID), Address: raft.ServerAddress(o.RaftAddr),
		}}},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writeImage(imagePath(dir), a); err != nil {
		return err
	}
	if err := o.writeTerm(dir, pos.Term); err != nil {
		return err
	}
	file, err := openMemberFile(dir)
	if err != nil {
		return err
	}
	file.ClusterID, file.Incarnation = machine.ClusterID(view), incarnation
	return errors.Join(file.save(), syncDir(filepath.Dir(dir)))
}

// writeImage writes a state into a new image.
func writeImage(path string, a *applied) error {
	img, err := openImage(path)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(snapshotOf(a).Write(w))
	}()
	err = fillImage(img.db, r, func(*storagepb.ImageMeta) error { return nil }, unwatched)
	_ = r.Close()
	<-written
	return errors.Join(err, img.close())
}

// writeTerm makes a log without entries, of a member that has seen a term.
func (o Offline) writeTerm(dir string, term uint64) error {
	n := &Node{cfg: Config{DataDir: dir, LogStore: o.LogStore}, log: slog.New(slog.DiscardHandler), failed: make(chan struct{})}
	store, err := n.openLog("")
	if err != nil {
		return err
	}
	return errors.Join(store.SetUint64(keyCurrentTerm, term), store.Close())
}
