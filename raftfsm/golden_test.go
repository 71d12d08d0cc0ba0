package raftfsm

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/config"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/kv"
	"github.com/metasrv/metasrv/lock"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// What a released version wrote must be read, and mean the same, for ever: each folder of testdata/golden has a log, a
// snapshot and an image (packed) of one version, with the results and the state that came of the log.
const (
	goldenRoot = "testdata/golden"
	// goldenVersion is the folder of the version that is being developed, the only one that -update writes.
	goldenVersion = "v2"
	// goldenCommandVersion is the command version of its entries.
	goldenCommandVersion = 2
	// releasedFile is in the folders of versions that were released: they never change any more.
	releasedFile = "RELEASED"
)

var update = flag.Bool("update", false, "write the golden files of the version that is being developed")

func goldenAppliers() []state.Applier {
	return []state.Applier{
		kv.NewApplier(), catalog.NewApplier(), router.NewApplier(heartbeat.Registration), heartbeat.NewApplier(), lock.NewApplier(),
		procedure.NewApplier(procedure.Effects{
			ChangeRegions: router.Changer(heartbeat.Registration), SetReplicas: router.SetReplicas,
			SetDrain: heartbeat.SetDrain, RemoveNode: heartbeat.Remove, NodeRemoved: router.NodeRemoved,
		}),
		config.NewApplier(),
	}
}

// Every version's log gives the results and the state that it gave then, from the beginning as well as from the
// snapshot and from the image of a state within.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t, filepath.Join(goldenRoot, goldenVersion), goldenScript())
	}
	dirs, err := filepath.Glob(goldenRoot + "/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			entries := readGoldenLog(t, dir)
			results, final := replay(t, machine.New(goldenAppliers()...), entries, 0)
			sameAsFile(t, filepath.Join(dir, "results.txt"), results)
			sameAsFile(t, filepath.Join(dir, "state.txt"), describe(final))
			for name, load := range map[string]func(*testing.T, string) *machine.View{"snapshot": loadGoldenSnapshot, "image": loadGoldenImage} {
				m := machine.New(goldenAppliers()...)
				middle := load(t, dir)
				m.Reset(middle)
				if _, v := replay(t, m, entries, middle.Position().Index); v.Hash() != final.Hash() || middle.Position().Index == 0 {
					t.Errorf("from the %s of index %d on the log makes the state\n%s\nwant\n%s", name, middle.Position().Index, describe(v), describe(final))
				}
			}
		})
	}
}

// A kind of command without a line in goldenScript could change its meaning unnoticed.
func TestEveryCommandIsInAGoldenLog(t *testing.T) {
	seen := map[storagepb.CommandKind]bool{}
	dirs, err := filepath.Glob(goldenRoot + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		for _, e := range readGoldenLog(t, dir) {
			for _, c := range e.entry.Commands {
				seen[c.Kind] = true
			}
		}
	}
	m := machine.New(goldenAppliers()...)
	for _, number := range slices.Sorted(maps.Keys(storagepb.CommandKind_name)) {
		kind := storagepb.CommandKind(number)
		if m.Since(kind) > 0 && !seen[kind] {
			t.Errorf("%s is in no golden log: add it to goldenScript in golden_script_test.go, then run go test ./raftfsm -run TestGolden -update "+
				"(CONTRIBUTING.md, adding a command)", kind)
		}
	}
}

// The golden files of the version that is being developed are those of goldenScript, unless it was released.
func TestGoldenLogIsThatOfTheScript(t *testing.T) {
	dir := filepath.Join(goldenRoot, goldenVersion)
	if isReleased(t, dir) {
		t.Skip("the version was released: the next change of goldenScript gets a new folder")
	}
	sameAsFile(t, filepath.Join(dir, "log.txt"), formatLog(goldenScript()))
}

func isReleased(t *testing.T, dir string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(dir, releasedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func sameAsFile(t *testing.T, path, got string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

// replay applies the entries behind an index and returns their results, one a line, and the state.
func replay(t *testing.T, m *machine.Machine, entries []goldenEntry, from uint64) (string, *machine.View) {
	t.Helper()
	var b strings.Builder
	for i, e := range entries {
		index := uint64(i + 1)
		if index <= from {
			continue
		}
		out, err := m.Apply(index, e.term, state.Encode(e.entry))
		if err != nil {
			t.Fatal(err)
		}
		for j, r := range out.Encoded() {
			fmt.Fprintf(&b, "%d.%d %s revision %d: ", index, j, kindName(e.entry.Commands[j].Kind), r.Revision)
			if r.Refusal != nil {
				fmt.Fprintf(&b, "refused %s %s\n", r.Refusal.Reason, r.Refusal.Field)
			} else {
				fmt.Fprintf(&b, "%x\n", withoutWords(t, e.entry.Commands[j].Kind, r.Payload))
			}
		}
	}
	return b.String(), m.View()
}

// withoutWords returns a result without the text of refusals within, which may change.
func withoutWords(t *testing.T, kind storagepb.CommandKind, payload []byte) []byte {
	t.Helper()
	if kind != storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS {
		return payload
	}
	result := &storagepb.ChangeRegionsResult{}
	if err := state.Decode(payload, result); err != nil {
		t.Fatal(err)
	}
	for _, r := range result.Results {
		if r.Refusal != nil {
			r.Refusal.Message = ""
		}
	}
	return state.Encode(result)
}

func kindName(kind storagepb.CommandKind) string {
	return strings.TrimPrefix(kind.String(), "COMMAND_KIND_")
}

// describe returns a state as text, one pair a line.
func describe(v *machine.View) string {
	var b strings.Builder
	pos := v.Position()
	fmt.Fprintf(&b, "index %d term %d revision %d time %d version %d hash %016x\n", pos.Index, pos.Term, pos.Revision, pos.Now, pos.Version, v.Hash())
	for key, value := range v.Ascend("", "") {
		fmt.Fprintf(&b, "%q %x\n", key, value)
	}
	return b.String()
}

func formatLog(entries []goldenEntry) string {
	var b strings.Builder
	for _, e := range entries {
		var kinds []string
		for _, c := range e.entry.Commands {
			kinds = append(kinds, kindName(c.Kind))
		}
		fmt.Fprintf(&b, "%d %x %s\n", e.term, state.Encode(e.entry), strings.Join(kinds, ","))
	}
	return b.String()
}

func readGoldenLog(t *testing.T, dir string) []goldenEntry {
	t.Helper()
	file, err := os.Open(filepath.Join(dir, "log.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var entries []goldenEntry
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e goldenEntry
		var encoded string
		if _, err := fmt.Sscan(lines.Text(), &e.term, &encoded); err != nil {
			t.Fatal(err)
		}
		data, err := hex.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		e.entry = &storagepb.Entry{}
		if err := state.Decode(data, e.entry); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return entries
}

// loadGoldenSnapshot receives the snapshot as a member does.
func loadGoldenSnapshot(t *testing.T, dir string) *machine.View {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "snapshot.bin"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state.db")
	img, err := openImage(path)
	if err != nil {
		t.Fatal(err)
	}
	err = fillImage(img.db, bytes.NewReader(data), func(*storagepb.ImageMeta) error { return nil }, unwatched)
	if err = errors.Join(err, img.close()); err != nil {
		t.Fatal(err)
	}
	return loadImage(t, path)
}

// loadGoldenImage loads a copy of the image.
func loadGoldenImage(t *testing.T, dir string) *machine.View {
	t.Helper()
	packed, err := os.Open(filepath.Join(dir, "state.db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return loadImage(t, path)
}

func loadImage(t *testing.T, path string) *machine.View {
	t.Helper()
	img, err := openImage(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := img.load()
	if err = errors.Join(err, img.close()); err != nil {
		t.Fatal(err)
	}
	return a.view
}

// writeGolden writes the files of a version that was not released.
func writeGolden(t *testing.T, dir string, entries []goldenEntry) {
	t.Helper()
	if isReleased(t, dir) {
		t.Fatalf("%s was released, its files never change: make goldenVersion a new folder", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	results, final := replay(t, machine.New(goldenAppliers()...), entries, 0)
	m := machine.New(goldenAppliers()...)
	replay(t, m, entries[:len(entries)*3/4], 0)
	middle := &applied{view: m.View(), configurationIndex: 1, configuration: raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "a", Address: "a:3003"}, {Suffrage: raft.Nonvoter, ID: "b", Address: "b:3003"},
	}}}
	var stream bytes.Buffer
	if err := snapshotOf(middle).Write(&stream); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"log.txt": formatLog(entries), "results.txt": results, "state.txt": describe(final), "snapshot.bin": stream.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "state.db")
	img, err := openImage(path)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for key := range middle.view.Ascend("", "") {
		keys = append(keys, key)
	}
	if err = errors.Join(img.write(middle, keys), img.close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err = w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err = errors.Join(w.Close(), os.WriteFile(filepath.Join(dir, "state.db.gz"), packed.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}
