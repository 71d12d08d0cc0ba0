package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// A record that the disk gives back otherwise than it was written is never executed nor sent: the member ends.
func TestDamagedRecordEndsTheMember(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	third, lagging := (at+1)%3, (at+2)%3
	c.stop(lagging)
	for i := range 40 {
		mustPut(t, leader, key(i))
	}
	c.stop(at) // what it has in memory is right
	store, err := openLog(filepath.Join(c.folder(at), "raft.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	db := store.db
	var entry raft.Log
	if err := db.GetLog(20, &entry); err != nil {
		t.Fatal(err)
	}
	entry.Data = bytes.Clone(entry.Data)
	entry.Data[len(entry.Data)/2] ^= 1
	if err := errors.Join(db.StoreLog(&entry), db.Close()); err != nil {
		t.Fatal(err)
	}
	bad := c.start(at)
	eventually(t, "the member with the damaged record leads", func() bool {
		_ = c.nodes[third].raft.LeadershipTransferToServer(raft.ServerID(bad.cfg.MemberID), raft.ServerAddress(bad.cfg.RaftAddr)).Error()
		_, leads := bad.Leadership()
		return leads
	})
	c.start(lagging) // it needs the entry
	eventually(t, "the damage is found", func() bool { return bad.Err() != nil })
	if err := bad.Err(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "entry 20 has checksum") {
		t.Errorf("the member ended with %v", err)
	}
	_ = bad.Close(context.Background())
	c.nodes[at] = nil
	c.leader()
	eventually(t, "the other members have everything", func() bool {
		return get(c.nodes[third].View(), key(39)) == "v" && get(c.nodes[lagging].View(), key(39)) == "v"
	})
}

// A log with a record that is wrong or missing behind the image is refused at the start, in words and not with a panic.
func TestDamagedLogIsRefusedAtTheStart(t *testing.T) {
	for name, change := range map[string]func(db logDB) error{
		"entry 20 has checksum": func(db logDB) error {
			var entry raft.Log
			err := db.GetLog(20, &entry)
			entry.Data = append(bytes.Clone(entry.Data), 0)
			return errors.Join(err, db.StoreLog(&entry))
		},
		"entry 21 is missing": func(db logDB) error { return db.DeleteRange(21, 21) },
		"has no checksum": func(db logDB) error {
			var entry raft.Log
			err := db.GetLog(22, &entry)
			entry.Extensions = nil
			return errors.Join(err, db.StoreLog(&entry))
		},
		"the checksum of CurrentTerm": func(db logDB) error { return db.Set(keyCurrentTerm, make([]byte, 12)) },
		"the checksum of LastVoteTerm": func(db logDB) error {
			return db.Set(keyLastVoteTerm, sealedValue(keyCurrentTerm, uint64Bytes(1)))
		},
		"but its term is 0": func(db logDB) error { return db.Set(keyCurrentTerm, sealedValue(keyCurrentTerm, uint64Bytes(0))) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, func(c *cluster) { c.timing.Flush = time.Hour })
			_, n := c.leader()
			for i := range 40 {
				mustPut(t, n, key(i))
			}
			n.fail(errors.New("ended without a last flush"))
			_ = n.Close(context.Background())
			c.nodes[0] = nil
			store, err := openLog(filepath.Join(c.folder(0), "raft.db"), func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(change(store.db), store.Close()); err != nil {
				t.Fatal(err)
			}
			n, err = Open(c.config(0))
			if err == nil {
				c.nodes[0] = n
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "raft.db") {
				t.Errorf("opened with %v; want that %s", err, name)
			}
		})
	}
}

// Files from before there were checksums are taken, and have them from then on.
func TestLogWithoutChecksumsIsTaken(t *testing.T) {
	db := memoryLog{raft.NewInmemStore()}
	for i := uint64(1); i <= 3; i++ {
		if err := db.StoreLog(&raft.Log{Index: i, Term: 2}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(db.Set(keyCurrentTerm, uint64Bytes(2)), db.Set(keyLastVoteTerm, uint64Bytes(2)), db.Set(keyLastVoteCand, []byte("a:1"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := guardLog(db, "log", func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		term, err := s.GetUint64(keyCurrentTerm)
		vote, voteErr := s.Get(keyLastVoteCand)
		if err != nil || voteErr != nil || term != 2 || string(vote) != "a:1" || s.checkedFrom != 4 {
			t.Errorf("term %d, vote %q, checked from %d: %v, %v", term, vote, s.checkedFrom, err, voteErr)
		}
		if err := s.GetLog(3, &raft.Log{}); err != nil {
			t.Errorf("an entry from before: %v", err)
		}
	}
}

// What is wrong with the list of free pages is said in words.
func TestDamagedListOfFreePagesIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "some.db")
	db, err := bbolt.Open(path, 0o600, nil) // which keeps a list
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := metaAt(data, 0)
	if err != nil {
		t.Fatal(err)
	}
	data[meta.freelist*meta.pageSize+8] = boltLeafFlag
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "is not the list of free pages: it is of the kind 2."
	if err := checkBolt(path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
		t.Errorf("checked with %v; want that a page %s", err, want)
	}
}
