package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/metasrv/metasrv"
)

const (
	lockFile  = "LOCK"
	ownerFile = "node.json"
	// unfinished ends the names of files that Create has not finished; nobody was told that they exist.
	unfinished = ".tmp"
)

// ErrLocked says that another process has the folder open.
var ErrLocked = errors.New("data folder is in use by another process")

// owner is the content of ownerFile.
type owner struct {
	Format      int            `json:"format"`
	NodeID      metasrv.NodeID `json:"node_id"`
	StorageUUID string         `json:"storage_uuid"`
	// ClusterID is 0 until the node has registered for the first time.
	ClusterID uint64 `json:"cluster_id,omitempty"`
}

const ownerFormat = 1

// folder is a data folder that this process has locked.
type folder struct {
	path  string
	lock  *os.File
	owner owner
}

// openFolder locks the folder, makes it if there is none, and reads its owner. A folder with replicas but
// without an owner is refused: it isn't a new one.
func openFolder(path string, node metasrv.NodeID) (_ *folder, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := lockPath(filepath.Join(path, lockFile))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	f := &folder{path: path, lock: lock}
	data, err := os.ReadFile(filepath.Join(path, ownerFile)) //nolint:gosec // the operator names the folder
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, f.claim(node)
	case err != nil:
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := json.Unmarshal(data, &f.owner); err != nil || f.owner.StorageUUID == "" {
		return nil, fmt.Errorf("data folder %s: %s is damaged: restore it from a copy, or start with an empty folder",
			path, ownerFile)
	}
	switch {
	case f.owner.Format != ownerFormat:
		return nil, fmt.Errorf("data folder %s has format %d, this program reads format %d",
			path, f.owner.Format, ownerFormat)
	case f.owner.NodeID != node:
		return nil, fmt.Errorf("data folder %s belongs to node %s, not to node %s", path, f.owner.NodeID, node)
	}
	return f, nil
}

func lockPath(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator names the folder
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a descriptor fits
	if err == nil {
		return lock, nil
	}
	_ = lock.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, filepath.Dir(path))
	}
	return nil, fmt.Errorf("lock data folder %s: %w", filepath.Dir(path), err)
}

// claim writes the owner of a new folder.
func (f *folder) claim(node metasrv.NodeID) error {
	names, err := f.replicaFiles()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("data folder %s holds %d replicas but no %s: restore it from a copy, or start with an empty folder",
			f.path, len(names), ownerFile)
	}
	return f.setOwner(owner{Format: ownerFormat, NodeID: node, StorageUUID: uuid.NewString()})
}

// setOwner returns when the owner is durable.
func (f *folder) setOwner(o owner) error {
	data, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(f.path, ownerFile+unfinished)
	if err := writeSynced(temporary, append(data, '\n')); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(f.path, ownerFile)); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := f.sync(); err != nil {
		return err
	}
	f.owner = o
	return nil
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // a name of ours
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// replicaFiles returns the names of the replicas' files, in order.
func (f *folder) replicaFiles() ([]string, error) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "region-") && strings.HasSuffix(e.Name(), ".db") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// sweep deletes what a crash may have left beside the replicas: files that Create had not finished, and logs of
// files whose deletion had begun.
func (f *folder) sweep() error {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, "region-") {
			continue
		}
		leftover := strings.Contains(name, unfinished)
		for _, suffix := range sqliteSuffixes {
			if main, ok := strings.CutSuffix(name, suffix); ok {
				_, err := os.Stat(filepath.Join(f.path, main))
				leftover = leftover || errors.Is(err, fs.ErrNotExist)
			}
		}
		if leftover {
			if err := os.Remove(filepath.Join(f.path, name)); err != nil {
				return fmt.Errorf("data folder: %w", err)
			}
		}
	}
	return nil
}

// sqliteSuffixes are what SQLite appends to a file's name for the files beside it.
var sqliteSuffixes = []string{"-wal", "-shm"}

// remove deletes a replica's files; the main one first, so that a crash in between leaves nothing to open.
func (f *folder) remove(name string) error {
	err := os.Remove(filepath.Join(f.path, name))
	for _, suffix := range sqliteSuffixes {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(filepath.Join(f.path, name+suffix))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete replica file: %w", err)
	}
	return f.sync()
}

// sync makes creations, renames and deletions in the folder durable.
func (f *folder) sync() error {
	dir, err := os.Open(f.path)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("data folder %s: %w", f.path, err)
	}
	return nil
}

func (f *folder) close() error { return f.lock.Close() }

// fileName returns the name of a replica's file.
func fileName(region metasrv.RegionID, replica metasrv.ReplicaID) string {
	return fmt.Sprintf("region-%d-%d-%d.db", region.Table(), region.Number(), replica)
}

// parseFileName is the reverse of fileName.
func parseFileName(name string) (metasrv.RegionID, metasrv.ReplicaID, bool) {
	var table, number, replica uint64
	if _, err := fmt.Sscanf(name, "region-%d-%d-%d.db", &table, &number, &replica); err != nil {
		return 0, 0, false
	}
	region := metasrv.NewRegionID(metasrv.TableID(table), uint32(number)) //nolint:gosec // compared below
	return region, metasrv.ReplicaID(replica), fileName(region, metasrv.ReplicaID(replica)) == name
}
