package datanode

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/metasrv/metasrv/examples/tsdb/store"
)

// journal notes what this node acknowledges, and what it stores for region leaders, for those who check that nobody else
// acknowledged it. A line is one of
//
//	ack region replica leader_epoch seq time write_id
//	store region replica leader_epoch seq time
//
// and stands there before the acknowledgement is given, or the leader hears of what was stored. leader_epoch is that of the
// lease, or of the sending leader; the lines of a replica are in the order in which it happened, so it never falls. time is in nanoseconds
// since 1970, that of an acknowledgement from before the last check of the lease; write_id is in hexadecimal. A line without
// an end counts for nothing.
type journal struct {
	mu   sync.Mutex
	file *os.File
}

// openJournal appends to a file; without a path nothing is noted.
func openJournal(path string) (*journal, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // a nil journal notes nothing
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &journal{file: file}, nil
}

// acknowledge notes writes that are about to be acknowledged. It is on its way to the disk when it returns: it outlives the
// process, not the machine.
func (j *journal) acknowledge(at time.Time, r *store.Replica, epoch uint64, seqs []uint64, writes []store.Write) error {
	if j == nil {
		return nil
	}
	var lines strings.Builder
	for i, w := range writes {
		fmt.Fprintf(&lines, "ack %d %d %d %d %d %x\n", uint64(r.Region()), uint64(r.ID()), epoch, seqs[i], at.UnixNano(), w.ID)
	}
	return j.append(lines.String())
}

// stored notes that writes up to a place are stored for the leader of an epoch.
func (j *journal) stored(at time.Time, r *store.Replica, epoch, seq uint64) error {
	if j == nil {
		return nil
	}
	return j.append(fmt.Sprintf("store %d %d %d %d %d\n", uint64(r.Region()), uint64(r.ID()), epoch, seq, at.UnixNano()))
}

func (j *journal) append(lines string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.WriteString(lines); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.file.Close()
}
