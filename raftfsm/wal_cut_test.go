package raftfsm

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
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
