package store

import (
	"container/list"
	"database/sql"
	"errors"
	"net/url"
	"sync"
	"syscall"
)

const (
	// readersPerFile bounds the queries that one replica runs at a time; further ones wait.
	readersPerFile = 4
	// mostOpen bounds the replicas whose files stay open by default: each takes some 100 KB of memory.
	mostOpen = 1024
	// handlesPerFile is what an open replica may take of the open files that a process is allowed: both connections have the
	// file and its log open, one the shared index, and queries add more.
	handlesPerFile = 8
)

// defaultOpen returns how many replicas may stay open. To open one again costs several times what a write does: the log is
// merged into the file at its end and begun anew.
func defaultOpen() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return mostOpen / handlesPerFile
	}
	return max(1, int(min(mostOpen, uint64(limit.Cur)/handlesPerFile))) //nolint:gosec,unconvert // bounded; signed on some systems
}

// file is an open SQLite file: one connection that writes, some that read beside it.
type file struct {
	writer, reader *sql.DB
}

// openFile opens a file that exists; with create it makes one. Connections are made at first use.
//
// synchronous=FULL: a commit has reached the disk when it returns, since a region leader must never be behind
// its followers, not even after a power cut.
func openFile(path string, create bool) (*file, error) {
	mode := "rw"
	if create {
		mode = "rwc"
	}
	dsn := func(pragmas ...string) string {
		q := url.Values{"mode": {mode}, "_pragma": append(pragmas, "busy_timeout(10000)"), "_txlock": {"immediate"}}
		return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	}
	writer, err := sql.Open("sqlite", dsn("journal_mode(WAL)", "synchronous(FULL)", "cache_size(-4096)"))
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	reader, err := sql.Open("sqlite", dsn("query_only(1)", "cache_size(-1024)"))
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	reader.SetMaxOpenConns(readersPerFile)
	reader.SetMaxIdleConns(1)
	return &file{writer: writer, reader: reader}, nil
}

func (f *file) close() error {
	// The writer goes last: it merges the write-ahead log into the file.
	return errors.Join(f.reader.Close(), f.writer.Close())
}

// openFiles knows which replicas have their file open, the most recently used first. Files in use stay open
// even above the bound; then the number of requests under way is the bound.
type openFiles struct {
	max int

	mu    sync.Mutex
	order *list.List // of *Replica
	place map[*Replica]*list.Element
}

func newOpenFiles(limit int) *openFiles {
	return &openFiles{max: limit, order: list.New(), place: map[*Replica]*list.Element{}}
}

// touch notes a use of r, and closes the files of replicas that weren't used for longest.
func (o *openFiles) touch(r *Replica) error {
	o.mu.Lock()
	if e := o.place[r]; e != nil {
		o.order.MoveToFront(e)
	} else {
		o.place[r] = o.order.PushFront(r)
	}
	var idle []*Replica
	for e := o.order.Back(); e != nil && len(o.place)-len(idle) > o.max; e = e.Prev() {
		idle = append(idle, e.Value.(*Replica)) //nolint:forcetypeassert // the list holds nothing else
	}
	o.mu.Unlock()
	var errs []error
	for _, old := range idle {
		if old != r {
			errs = append(errs, old.closeIdle())
		}
	}
	return errors.Join(errs...)
}

// forget is called with a replica whose file was closed.
func (o *openFiles) forget(r *Replica) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.place[r]; e != nil {
		o.order.Remove(e)
		delete(o.place, r)
	}
}
