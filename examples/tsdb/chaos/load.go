package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"
)

const (
	writers = 16
	readers = 4
	// writePause and readPause are what a client waits between two statements, on average.
	writePause = 100 * time.Millisecond
	readPause  = 100 * time.Millisecond
	// statementTimeout ends a statement that nobody answers.
	statementTimeout = 60 * time.Second
	// lastRows is how many rows of a writer a read looks at.
	lastRows = 200
)

const createEvents = `CREATE TABLE events (writer BIGINT NOT NULL, seq BIGINT NOT NULL, note VARCHAR(64))
  COMMENT 'replicas=3' PARTITION BY KEY (writer) PARTITIONS 8`

const createLatest = `CREATE TABLE latest (writer BIGINT NOT NULL, k BIGINT NOT NULL, v BIGINT, PRIMARY KEY (writer, k))
  COMMENT 'replicas=3' PARTITION BY KEY (writer) PARTITIONS 4`

// load is what clients do, and what they know.
type load struct {
	frontends []*sql.DB
	streams   []*stream
	latest    []*latest
	// writePause is what a writer waits between two statements, on average.
	writePause time.Duration
	// violated is told what a read found wrong.
	violated func(error)

	writes, failedWrites, reads, failedReads atomic.Int64
	// killed counts the frontends that were killed: statements under way failed.
	killed      atomic.Int64
	slowest     atomic.Int64
	lastFailure atomic.Pointer[string]
}

func newLoad(frontends []*sql.DB, violated func(error)) *load {
	l := &load{frontends: frontends, violated: violated, writePause: writePause}
	for w := range writers {
		l.streams = append(l.streams, &stream{writer: w})
		l.latest = append(l.latest, newLatest(w))
	}
	return l
}

// write lets one writer write until ctx ends. The statement under way is not interrupted.
func (l *load) write(ctx context.Context, w int) {
	random := rand.New(rand.NewPCG(uint64(w), 1)) //nolint:gosec // spreads the load
	at := w % len(l.frontends)
	for sleep(ctx, spread(random, l.writePause)) {
		var err error
		if random.IntN(3) > 0 {
			n := 1 + random.IntN(4)
			first := l.streams[w].send(n)
			if err = l.exec(at, insertEvents(w, first, n)); err == nil {
				l.streams[w].acknowledge(first, n)
			}
		} else {
			key, value := l.latest[w].send()
			err = l.exec(at, fmt.Sprintf("INSERT INTO latest VALUES (%d, %d, %d)", w, key, value))
			l.latest[w].outcome(key, value, err == nil)
		}
		if err != nil {
			at = (at + 1) % len(l.frontends)
		}
	}
}

func insertEvents(w, first, n int) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d, %d, 'row %d of writer %d')", w, first+i, first+i, w)
	}
	return "INSERT INTO events VALUES " + strings.Join(rows, ", ")
}

func (l *load) exec(frontend int, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	began := time.Now()
	_, err := l.frontends[frontend].ExecContext(ctx, statement)
	l.writes.Add(1)
	if took := int64(time.Since(began)); err == nil && took > l.slowest.Load() {
		l.slowest.Store(took)
	}
	if err != nil {
		l.failedWrites.Add(1)
		l.note(fmt.Sprintf("write through frontend %d after %s: %v", frontend, time.Since(began).Round(time.Millisecond), err))
	}
	return err
}

func (l *load) note(failure string) { l.lastFailure.Store(&failure) }

// read lets one reader read until ctx ends.
func (l *load) read(ctx context.Context, r int) {
	random := rand.New(rand.NewPCG(uint64(r), 2)) //nolint:gosec // spreads the load
	for sleep(ctx, spread(random, readPause)) {
		w, frontend := random.IntN(writers), random.IntN(len(l.frontends))
		var wrong, err error
		if random.IntN(2) > 0 {
			expect := l.streams[w].expect(lastRows)
			var found []int
			if found, err = l.events(frontend, w, expect.from); err == nil {
				wrong = expect.judge(found)
			}
		} else {
			least := l.latest[w].expect()
			var found map[int]int
			if found, err = l.values(frontend, w); err == nil {
				wrong = l.latest[w].judge(least, found)
			}
		}
		l.reads.Add(1)
		if err != nil {
			l.failedReads.Add(1)
			l.note(fmt.Sprintf("read through frontend %d: %v", frontend, err))
		}
		if wrong != nil {
			l.violated(fmt.Errorf("a read through frontend %d: %w", frontend, wrong))
		}
	}
}

// events reads the rows of a writer from one on.
func (l *load) events(frontend, w, from int) (found []int, err error) {
	err = l.query(frontend, fmt.Sprintf("SELECT seq FROM events WHERE writer = %d AND seq >= %d", w, from), func(rows *sql.Rows) error {
		var seq int
		err := rows.Scan(&seq)
		found = append(found, seq)
		return err
	})
	return found, err
}

// values reads the values of a writer by their keys.
func (l *load) values(frontend, w int) (found map[int]int, err error) {
	found = map[int]int{}
	err = l.query(frontend, fmt.Sprintf("SELECT k, v FROM latest WHERE writer = %d", w), func(rows *sql.Rows) error {
		var k, v int
		err := rows.Scan(&k, &v)
		found[k] = v
		return err
	})
	return found, err
}

func (l *load) query(frontend int, statement string, row func(*sql.Rows) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	rows, err := l.frontends[frontend].QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// rows returns how many rows were sent and acknowledged.
func (l *load) rows() (all, known int) {
	for _, s := range l.streams {
		a, k := s.counts()
		all, known = all+a, known+k
	}
	return all, known
}

// spread returns a pause around d.
func spread(random *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(random.Int64N(int64(d)))
}

// sleep returns false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
