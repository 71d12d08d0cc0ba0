package raftfsm

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// smallSegment has segments end often.
const smallSegment = 8 << 10

// walDisk watches what a log writes to its folder, and knows what a power cut may leave of it.
type walDisk struct {
	t   *testing.T
	dir string
	// taken is told of each call to the disk what a power cut may leave if it comes during the call.
	taken func(walCut)

	types.VFS
	mu    sync.Mutex
	files map[string]walCutFile
}

// walCut is what a power cut may leave of a log.
type walCut struct {
	call     string
	files    map[string]walCutFile
	from, to sparse // of the list of segments
}

// walCutFile is what a power cut may leave of a segment.
type walCutFile struct {
	synced     []byte
	syncedSize int64
	writes     []walWrite // since the last sync
	size       int64
	unsure     bool // whether it is in its folder
}

type walWrite struct {
	at   int64
	data []byte
}

func newWALDisk(t *testing.T, dir string, taken func(walCut)) *walDisk {
	d := &walDisk{t: t, dir: dir, taken: taken, files: map[string]walCutFile{}}
	paths, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		content := readSparse(t, path)
		d.files[filepath.Base(path)] = walCutFile{synced: content.data, syncedSize: content.size, size: content.size}
	}
	return d
}

func (d *walDisk) options() walOptions {
	return walOptions{
		segment: smallSegment, logger: hclog.NewNullLogger(), aroundMeta: d.aroundMeta,
		files: func(files types.VFS) types.VFS { d.VFS = files; return d },
	}
}

// during runs a call to the disk on a file, which goes from one state to the next; while it runs, it is as cut.
func (d *walDisk) during(what, name string, cut, after walCutFile, call func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.list()
	files := maps.Clone(d.files)
	files[name] = cut
	d.taken(walCut{what + " " + name, files, list, list})
	if err := call(); err != nil {
		return err
	}
	d.files[name] = after
	return nil
}

func (d *walDisk) list() sparse { return readSparse(d.t, filepath.Join(d.dir, metadb.FileName)) }

func (d *walDisk) aroundMeta(write func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut := walCut{call: "list", files: maps.Clone(d.files), from: d.list()}
	err := write()
	cut.to = d.list()
	d.taken(cut)
	return err
}

func (d *walDisk) Create(dir, name string, size uint64) (file types.WritableFile, err error) {
	made := walCutFile{size: int64(size), unsure: true}
	after := made
	after.unsure = false
	err = d.during("create", name, made, after, func() error {
		file, err = d.VFS.Create(dir, name, size)
		return err
	})
	return &walDiskFile{file, d, name}, err
}

func (d *walDisk) Delete(dir, name string) error {
	gone := d.files[name]
	gone.unsure = true
	err := d.during("delete", name, gone, gone, func() error { return d.VFS.Delete(dir, name) })
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
	return err
}

func (d *walDisk) OpenWriter(dir, name string) (types.WritableFile, error) {
	file, err := d.VFS.OpenWriter(dir, name)
	return &walDiskFile{file, d, name}, err
}

type walDiskFile struct {
	types.WritableFile
	disk *walDisk
	name string
}

func (f *walDiskFile) WriteAt(data []byte, at int64) (n int, err error) {
	file := f.disk.files[f.name]
	file.writes = append(slices.Clone(file.writes), walWrite{at, bytes.Clone(data)})
	file.size = max(file.size, at+int64(len(data)))
	return len(data), f.disk.during("write", f.name, file, file, func() error {
		_, err := f.WritableFile.WriteAt(data, at)
		return err
	})
}

func (f *walDiskFile) Sync() error {
	file := f.disk.files[f.name]
	after := walCutFile{synced: file.content(func(int64) bool { return true }), syncedSize: file.size, size: file.size}
	return f.disk.during("sync", f.name, file, after, f.WritableFile.Sync)
}

// content returns what is in a file when the sectors are written that are told to be.
func (f walCutFile) content(written func(sector int64) bool) []byte {
	content := bytes.Clone(f.synced)
	for _, w := range f.writes {
		end := w.at + int64(len(w.data))
		if grow := end - int64(len(content)); grow > 0 {
			content = append(content, make([]byte, grow)...)
		}
		for at := w.at; at < end; {
			sector := at / sectorBytes
			next := min(end, (sector+1)*sectorBytes)
			if written(sector) {
				copy(content[at:next], w.data[at-w.at:])
			}
			at = next
		}
	}
	return content
}

// write makes the files that a power cut may have left.
func (c walCut) write(t *testing.T, dir string, random *rand.Rand) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		f := c.files[name]
		if f.unsure && random.IntN(2) == 0 {
			continue
		}
		part := []int{0, 1, 2, 2, 7, 8}[random.IntN(6)] // eighths of the sectors
		content := f.content(func(int64) bool { return random.IntN(8) < part })
		size := f.size
		if random.IntN(4) == 0 {
			size = f.syncedSize
		}
		sparse{content[:min(int64(len(content)), size)], size}.write(t, filepath.Join(dir, name))
	}
	list := c.from
	if !bytes.Equal(c.from.data, c.to.data) || c.from.size != c.to.size {
		list = powerCut(random, c.from, c.to)
	}
	if list.size > 0 {
		list.write(t, filepath.Join(dir, metadb.FileName))
	}
}

// TestPowerCutAtAnyMoment with a log in segment files, which end every few entries.
func TestPowerCutAtAnyMomentOnWAL(t *testing.T) {
	type memberCut struct {
		walCut
		from, to sparse // of the image
		acked    int
	}
	var (
		random = seedOf(t)
		mu     sync.Mutex
		cuts   []memberCut
		acked  int
		image  string
		disk   *walDisk
	)
	c := newCluster(t, 1, func(c *cluster) {
		c.timing.Flush = time.Hour // only when the test asks
		c.log = LogRetention{Trailing: 5, Threshold: 1 << 40, Interval: time.Hour}
		folder := filepath.Join(c.dir, "a")
		image = filepath.Join(folder, "state.db")
		disk = newWALDisk(t, walPath(folder), func(cut walCut) {
			mu.Lock()
			defer mu.Unlock()
			now := readSparse(t, image)
			cuts = append(cuts, memberCut{cut, now, now, acked})
		})
		c.configure = func(_ int, cfg *Config) { cfg.LogStore, cfg.wal = LogStoreWAL, disk.options() }
	})
	writeToCrash(t, c, random, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		acked = n
	}, func(flush func() error) error {
		disk.mu.Lock()
		list := disk.list()
		cut := memberCut{walCut: walCut{"flush", maps.Clone(disk.files), list, list}, from: readSparse(t, image), acked: acked}
		disk.mu.Unlock()
		err := flush()
		cut.to = readSparse(t, image)
		mu.Lock()
		defer mu.Unlock()
		cuts = append(cuts, cut)
		return err
	})
	for i, cut := range cuts {
		for range repeated(1) {
			dir := memoryDir(t)
			cut.write(t, walPath(dir), random)
			if cut.to.size > 0 {
				content := cut.from
				if cut.call == "flush" {
					content = powerCut(random, cut.from, cut.to)
				}
				content.write(t, filepath.Join(dir, "state.db"))
			}
			if err := checkCrash(dir, LogStoreWAL, cut.acked); err != nil {
				t.Errorf("call %d, %s, %d acknowledged: %v", i, cut.call, cut.acked, err)
			}
			_ = os.RemoveAll(dir)
		}
	}
	t.Logf("%d calls were cut", len(cuts))
}

// walModel is what a log has.
type walModel struct {
	entries []raft.Log
	term    uint64
}

func (m walModel) last() uint64 {
	if len(m.entries) == 0 {
		return 0
	}
	return m.entries[len(m.entries)-1].Index
}

func modelOf(log *logStore) (m walModel, err error) {
	first, err := log.FirstIndex()
	if err != nil {
		return m, err
	}
	last, err := log.LastIndex()
	if err != nil {
		return m, err
	}
	for i := first; i > 0 && i <= last; i++ {
		var entry raft.Log
		if err := log.GetLog(i, &entry); err != nil {
			return m, err
		}
		m.entries = append(m.entries, raft.Log{Index: entry.Index, Term: entry.Term, Data: entry.Data})
	}
	m.term, err = log.GetUint64(keyCurrentTerm)
	return m, err
}

func (m walModel) equal(other walModel) bool {
	return m.term == other.term && slices.EqualFunc(m.entries, other.entries, func(a, b raft.Log) bool {
		return a.Index == b.Index && a.Term == b.Term && bytes.Equal(a.Data, b.Data)
	})
}

// change does something to a log. It returns the model behind it.
func (m walModel) change(random *rand.Rand, log *logStore) (after walModel, do func() error) {
	after = walModel{slices.Clone(m.entries), m.term}
	switch n := len(m.entries); random.IntN(12) {
	case 0:
		after.term++
		return after, func() error { return log.SetUint64(keyCurrentTerm, after.term) }
	case 1:
		return after, func() error { log.note(); return nil }
	case 2, 3: // at the end; sometimes everything
		if n == 0 {
			return after, func() error { return nil }
		}
		keep := max(0, n-1-random.IntN(12))
		after.entries = after.entries[:keep]
		return after, func() error { return log.db.DeleteRange(m.entries[keep].Index, m.last()) }
	case 4: // at the front
		if n < 2 {
			return after, func() error { return nil }
		}
		drop := 1 + random.IntN(n-1)
		after.entries = after.entries[drop:]
		return after, func() error { return log.db.DeleteRange(m.entries[0].Index, m.entries[drop-1].Index) }
	}
	next := m.last() + 1
	if next == 1 {
		next += random.Uint64N(100)
	}
	var batch []*raft.Log
	for i := range 1 + random.Uint64N(4) {
		data := make([]byte, random.IntN(1500))
		for j := range data {
			data[j] = byte(random.Uint32N(4)) // zeros, and what frames begin with
		}
		entry := raft.Log{Index: next + i, Term: after.term, Data: data}
		after.entries = append(after.entries, entry)
		batch = append(batch, &entry)
	}
	return after, func() error { return log.StoreLogs(batch) }
}

// A log that is cut off its power again and again, also while it is opened, has what was stored before, and nothing else.
func TestWALSurvivesPowerCuts(t *testing.T) {
	random := seedOf(t)
	for range repeated(25) {
		possible := []walModel{{}}
		dir := filepath.Join(memoryDir(t), "wal")
		for range 8 {
			cut, now := cutWAL(t, random, dir, possible)
			if t.Failed() {
				return
			}
			dir = filepath.Join(memoryDir(t), "wal")
			cut.write(t, dir, random)
			possible = now
		}
	}
}

// cutWAL opens a log, which is one of the possible ones, and changes it until the power is cut. It returns what the cut
// leaves, and what the log may have then.
func cutWAL(t *testing.T, random *rand.Rand, dir string, possible []walModel) (taken walCut, then []walModel) {
	t.Helper()
	var mu sync.Mutex
	calls, at := 0, 1+random.IntN(60)
	disk := newWALDisk(t, dir, func(cut walCut) {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls <= at {
			taken, then = cut, possible
		}
	})
	log, err := openWAL(dir, disk.options(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatalf("after a power cut: %v", err)
	}
	defer func() { _ = log.Close() }()
	m, err := modelOf(log)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(possible, m.equal) {
		t.Fatalf("after a power cut the log has %d entries up to %d and term %d; it had %s", len(m.entries), m.last(), m.term, describeModels(possible))
	}
	possibly := func(models ...walModel) bool {
		mu.Lock()
		defer mu.Unlock()
		possible = models
		return calls < at
	}
	for possibly(m) {
		after, do := m.change(random, log)
		possibly(m, after)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		m = after
	}
	return taken, then
}

func describeModels(models []walModel) string {
	var b bytes.Buffer
	for _, m := range models {
		fmt.Fprintf(&b, "%d entries up to %d and term %d; ", len(m.entries), m.last(), m.term)
	}
	return b.String()
}
