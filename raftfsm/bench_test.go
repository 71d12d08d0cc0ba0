package raftfsm

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// bench is an fsm with its image, without raft.
type bench struct {
	*fsm
	t     *testing.T
	path  string
	index uint64
}

func newBench(t *testing.T) *bench { return newBenchIn(t, t.TempDir()) }

func newBenchIn(t *testing.T, dir string) *bench {
	t.Helper()
	path := filepath.Join(dir, "state.db")
	img, err := openImage(path)
	if err != nil {
		t.Fatal(err)
	}
	from, err := img.load()
	if err != nil {
		t.Fatal(err)
	}
	fail := func(err error) { t.Errorf("failed: %v", err) }
	logs := raft.NewInmemStore()
	f := newFSM(from, []state.Applier{kv.NewApplier()}, logs, fail)
	// An hour: only what the test asks for is flushed.
	newFlusher(f, img, Timing{Flush: time.Hour, FlushBytes: 1 << 30}, fail)
	f.flusher.start()
	return &bench{fsm: f, t: t, path: path}
}

func entryOf(commands ...*storagepb.Command) []byte {
	return state.Encode(&storagepb.Entry{Version: machine.EntryVersion, Commands: commands})
}

func (b *bench) put(key, value string) {
	b.t.Helper()
	b.index++
	result := b.Apply(&raft.Log{Index: b.index, Term: 3, Type: raft.LogCommand, Data: entryOf(&storagepb.Command{
		Kind:    storagepb.CommandKind_COMMAND_KIND_PUT,
		Payload: state.Encode(&storagepb.Put{Key: []byte(key), Value: []byte(value)}),
	})}).(entryResult)
	if result.err != nil {
		b.t.Fatal(result.err)
	}
}

func contentOf(v state.View) map[string]string {
	all := map[string]string{}
	for key, value := range v.Ascend("", "") {
		all[key] = string(value)
	}
	return all
}

// pairsOf returns the content as users see it.
func pairsOf(v state.View) map[string]string {
	all := contentOf(v)
	for key := range all {
		if name, ok := strings.CutPrefix(key, "kv/"); ok {
			all[key] = get(v, name)
		}
	}
	return all
}

// putNext applies the next entry of a history in which the state at an index is known.
func (b *bench) putNext() {
	b.t.Helper()
	i := b.index + 1
	b.put(fmt.Sprintf("k%d", i%50), fmt.Sprint(i))
}

func stateAt(index uint64) map[string]string {
	want := map[string]string{}
	for i := index - min(index, 50) + 1; i <= index; i++ {
		want[fmt.Sprintf("kv/k%d", i%50)] = fmt.Sprint(i)
	}
	return want
}
