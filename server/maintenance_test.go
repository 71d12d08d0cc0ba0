package server

import (
	"bytes"
	"errors"
	"io"
	"testing"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
)

func (m *testMemberServer) maintenance() metasrvpb.MaintenanceClient {
	return metasrvpb.NewMaintenanceClient(m.conn)
}

// save returns the snapshot that a member streams, with the length that it announced.
func (m *testMemberServer) save(t *testing.T) ([]byte, uint64) {
	t.Helper()
	stream, err := m.maintenance().Snapshot(timeout(t), &metasrvpb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var total uint64
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.Bytes(), total
		}
		if err != nil {
			t.Fatal(err)
		}
		total += resp.GetTotalBytes()
		b.Write(resp.GetChunk())
	}
}

func TestSnapshotHasEveryAcknowledgedWrite(t *testing.T) {
	m := startLeader(t)
	large := bytes.Repeat([]byte("v"), 1<<20)
	for _, key := range []string{"j", "k", "l"} {
		if _, err := m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte(key), Value: large}); err != nil {
			t.Fatal(err)
		}
	}
	file, total := m.save(t)
	if total != uint64(len(file)) {
		t.Errorf("announced %d bytes, sent %d", total, len(file))
	}
	found := 0
	err := snapshot.Read(bytes.NewReader(file),
		func(*storagepb.ImageMeta) error { return nil },
		func(_, value []byte) error {
			if bytes.HasSuffix(value, large) {
				found++
			}
			return nil
		})
	if err != nil || found != 3 {
		t.Errorf("the snapshot is read with %v; it has %d of 3 values", err, found)
	}
}
