package raftfsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// memberFile is what a member remembers of its way into the cluster, beside log and image: a small file that is
// replaced as a whole.
type memberFile struct {
	path string

	// Nonce tells this folder from one that was put in its place.
	Nonce uint64 `json:"nonce,string"`
	// Founders has the nonces of all founders, by id, from the moment on that this member founds the cluster with them.
	Founders map[string]uint64 `json:"founders,omitempty"`
	// ClusterID and Incarnation are those of the cluster that the member founded or was taken in by.
	ClusterID   uint64 `json:"cluster_id,string,omitempty"`
	Incarnation uint64 `json:"incarnation,string,omitempty"`
	// Ended says why the member must not run again.
	Ended string `json:"ended,omitempty"`
}

const memberFileName = "member.json"

// openMemberFile reads the file, or makes one where there is none.
func openMemberFile(dir string) (*memberFile, error) {
	f := &memberFile{path: filepath.Join(dir, memberFileName)}
	content, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.Nonce = randomID()
		return f, f.save()
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(content, f); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): take it from a copy of this folder, or "+replaceMember, f.path, err)
	}
	return f, nil
}

// save replaces the file. It is durable when save returns.
func (f *memberFile) save() error {
	content, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	next := f.path + ".next"
	file, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(content, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	if err := os.Rename(next, f.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.path))
}

// identity names one life of one cluster. The zero value is that of a member that is part of none yet.
type identity struct{ cluster, incarnation uint64 }

// identity returns the cluster that the member is part of.
func (n *Node) identity() identity {
	if c := clusterOf(n); c.GetClusterId() != 0 {
		return identity{c.GetClusterId(), c.GetIncarnation()}
	}
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	return identity{n.file.ClusterID, n.file.Incarnation}
}

// editFile changes the member's file.
func (n *Node) editFile(change func(*memberFile)) error {
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	change(n.file)
	return n.file.save()
}
