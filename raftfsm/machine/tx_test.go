package machine

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A command that writes a key more than once has changed it once: from the value before its first write to the last one.
func TestWritesOfAKeyAreJoined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var writes, want []write
		n := rapid.IntRange(0, 3*maxRoom).Draw(t, "writes")
		for i := range n {
			w := write{
				key:  fmt.Sprint(rapid.IntRange(0, n).Draw(t, "key")),
				prev: fmt.Append(nil, "before ", i), value: fmt.Append(nil, "after ", i),
				existed: rapid.Bool().Draw(t, "existed"), exists: rapid.Bool().Draw(t, "exists"),
			}
			writes = append(writes, w)
			again := false
			for j := range want {
				if want[j].key == w.key {
					want[j].value, want[j].exists, again = w.value, w.exists, true
				}
			}
			if !again {
				want = append(want, w)
			}
		}
		if diff := cmp.Diff(want, merged(writes), cmp.AllowUnexported(write{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
