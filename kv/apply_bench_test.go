package kv_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// What a member that follows does with a put: entries of 170 commands over 200,000 random keys of 256 bytes. A view is
// taken every 100 entries.
func BenchmarkApplyPuts(b *testing.B) {
	const keys, commands = 200_000, 170
	m := machine.New(kv.NewApplier())
	feed := machine.NewFeed(0, 64<<20)
	random, value := rand.New(rand.NewPCG(1, 2)), make([]byte, 256)
	index := uint64(0)
	apply := func(key func(i int) int) {
		entry := []byte(nil)
		for i := range commands {
			name := fmt.Appendf(nil, "metactl-bench/%08d", key(i))
			command, err := state.Prepare(&state.Proposal{Kind: put, Payload: &storagepb.Put{Key: name, Value: value}})
			if err != nil {
				b.Fatal(err)
			}
			entry = command.Append(entry)
		}
		data := state.FinishEntry(entry, machine.FirstVersion, 1, 1)
		index++
		b.StartTimer()
		out, err := m.Apply(index, 1, data)
		feed.Publish(out.Revisions)
		if index%100 == 0 {
			m.View()
		}
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
	}
	next := 0
	order := random.Perm(keys)
	for next < keys {
		apply(func(i int) int { return order[min(next+i, keys-1)] })
		next += commands
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.StopTimer()
	for done := 0; done < b.N; done += commands {
		apply(func(int) int { return random.IntN(keys) })
	}
}
