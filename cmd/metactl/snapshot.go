package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/metasrv/metasrv/client"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
)

func (a *app) snapshotCommand() *cobra.Command {
	one := args(cobra.ExactArgs(1), "the path of a snapshot")
	save := &cobra.Command{
		Use: "save FILE", Args: one,
		Short: "Save the state of the cluster to a file",
		Long: `Saves the whole state, of one moment, with every change that was acknowledged before. The file appears when it is
whole, durable and verified. --timeout counts from one received part to the next.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.saveSnapshot(cmd.Context(), args[0]) },
	}
	inspect := &cobra.Command{
		Use: "inspect FILE", Args: one, Short: "Show what a snapshot holds",
		RunE: func(_ *cobra.Command, args []string) error { return a.inspectSnapshot(args[0]) },
	}
	verify := &cobra.Command{
		Use: "verify FILE", Args: one, Short: "Read a whole snapshot and compare its checksum",
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := readSnapshot(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is whole: %s, revision %d of cluster %d\n", args[0], plural(s.Keys, "key"), s.Revision, s.ClusterID)
			return nil
		},
	}
	restore := &cobra.Command{
		Use: "restore FILE", Hidden: true, Args: cobra.ArbitraryArgs, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return usagef("a snapshot is restored on the machine of the member that is to have it: metasrv restore FILE --node-id ID --data-dir NEW-FOLDER --raft-addr HOST:PORT")
		},
	}
	return group("snapshot", "Copies of the cluster's state: save, inspect, verify", save, inspect, verify, restore)
}

// saveSnapshot writes beside the file first, so that a file with the name is always whole.
func (a *app) saveSnapshot(ctx context.Context, path string) (err error) {
	if err := replaceable(path); err != nil {
		return err
	}
	next := path + ".part"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(f.Close()), os.Remove(next))
		}
	}()
	if err := a.receiveSnapshot(ctx, f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	s, err := readSnapshot(next)
	if err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "saved revision %d of cluster %d to %s: %s, %s, verified\n", s.Revision, s.ClusterID, path, plural(s.Keys, "key"), size(uint64(s.Bytes)))
	return nil
}

// replaceable returns an error if what has the name already is no file: the snapshot takes its place, so that
// /dev/stdout or /dev/null would be gone for every process of the machine.
func replaceable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil //nolint:nilerr // a folder that is missing, or not to be read, is told by what makes the file
	case info.IsDir():
		return usagef("%s is a folder: name a file in it", path)
	case !info.Mode().IsRegular():
		return usagef("%s is no regular file: a snapshot is saved to a file of its own, which it replaces", path)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// receiveSnapshot writes what the cluster streams. A stream that stands still for the command's time is given up.
func (a *app) receiveSnapshot(ctx context.Context, w io.Writer) error {
	if err := reach(ctx, a.endpoints); err != nil {
		return err
	}
	c, err := client.New(client.Config{Endpoints: a.endpoints, Logger: discardLogger})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, moved, cancel := stallContext(ctx, a.timeout)
	defer cancel()
	stream, err := c.Maintenance().Snapshot(ctx, &metasrvpb.SnapshotRequest{Header: a.header()}, grpc.MaxCallRecvMsgSize(16<<20))
	if err != nil {
		return err
	}
	var got, want uint64
	for {
		resp, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && got == want:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the member sent %d of %d bytes", got, want)
		case err != nil && context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		moved()
		if resp.TotalBytes > 0 {
			want = resp.TotalBytes
		}
		got += uint64(len(resp.Chunk))
		if _, err := w.Write(resp.Chunk); err != nil {
			return err
		}
	}
}

// prefixes are what people call the kinds of records, by the prefix of their keys.
var prefixes = []struct{ prefix, name string }{
	{"kv/", "key-value pairs"}, {"catalog/", "catalogs"}, {"schema/", "schemas"}, {"table/", "tables"},
	{"table_name/", "names of tables"}, {"table_pending/", "tables being made or dropped"}, {"route/", "routes"}, {"node/", "nodes"},
	{"seq/", "sequences"}, {"sys/member/", "members"}, {"sys/removed/", "removed members"}, {"sys/session/", "sessions"}, {"sys/", "system"},
}

// snapshotInfo describes a snapshot.
type snapshotInfo struct {
	File        string         `json:"file"`
	Bytes       int64          `json:"bytes"`
	Version     uint32         `json:"version"`
	ClusterID   uint64         `json:"clusterId,string"`
	Incarnation uint64         `json:"clusterIncarnation,string"`
	Index       uint64         `json:"index,string"`
	Term        uint64         `json:"term,string"`
	Revision    uint64         `json:"revision,string"`
	Hash        string         `json:"stateHash,omitempty"`
	Keys        uint64         `json:"keys,string"`
	Kinds       []snapshotKind `json:"kinds"`
}

// snapshotKind counts the records of one kind.
type snapshotKind struct {
	Prefix string `json:"prefix"`
	Name   string `json:"name,omitempty"`
	Keys   uint64 `json:"keys,string"`
	Bytes  uint64 `json:"bytes,string"`
}

// readSnapshot reads a whole file and checks it.
func readSnapshot(path string) (*snapshotInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &snapshotInfo{File: path, Bytes: stat.Size()}
	kinds := map[string]*snapshotKind{}
	err = snapshot.Read(f, func(m *storagepb.ImageMeta) error {
		s.Version, s.ClusterID, s.Incarnation = m.Version, m.ClusterId, m.ClusterIncarnation
		s.Index, s.Term, s.Revision, s.Keys = m.Index, m.Term, m.Revision, m.Keys
		if m.StateHash != 0 {
			s.Hash = fmt.Sprintf("%016x", m.StateHash)
		}
		return nil
	}, func(key, value []byte) error {
		k := kindOf(kinds, key)
		k.Keys++
		k.Bytes += uint64(len(key) + len(value))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, k := range kinds {
		s.Kinds = append(s.Kinds, *k)
	}
	slices.SortFunc(s.Kinds, func(a, b snapshotKind) int { return strings.Compare(a.Prefix, b.Prefix) })
	return s, nil
}

func kindOf(kinds map[string]*snapshotKind, key []byte) *snapshotKind {
	prefix, name := "", ""
	for _, p := range prefixes {
		if bytes.HasPrefix(key, []byte(p.prefix)) {
			prefix, name = p.prefix, p.name
			break
		}
	}
	if prefix == "" {
		before, _, _ := bytes.Cut(key, []byte("/"))
		prefix = string(before) + "/"
	}
	if kinds[prefix] == nil {
		kinds[prefix] = &snapshotKind{Prefix: prefix, Name: name}
	}
	return kinds[prefix]
}

func (a *app) inspectSnapshot(path string) error {
	s, err := readSnapshot(path)
	if err != nil {
		return err
	}
	if a.format == formatJSON {
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		return writeJSON(a.out, json.RawMessage(b))
	}
	life := "the first life of its cluster"
	if s.Incarnation != 0 {
		life = fmt.Sprintf("life %016x", s.Incarnation)
	}
	fmt.Fprintf(a.out, "file      %s, %s, format %d, whole\ncluster   %d, %s\nstate     revision %d, raft index %d of term %d, hash %s\nholds     %s\n\n",
		s.File, size(uint64(s.Bytes)), s.Version, s.ClusterID, life, s.Revision, s.Index, s.Term, s.Hash, plural(s.Keys, "key"))
	g := newGrid(a.out, "PREFIX", "KEYS", "BYTES", "WHAT")
	for _, k := range s.Kinds {
		g.row(k.Prefix, number(k.Keys), size(k.Bytes), k.Name)
	}
	g.end()
	return nil
}
