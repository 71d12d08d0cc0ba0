package linear

import (
	"fmt"
	"time"
)

// Expiry says that a session had expired. Its answer has no value of its own.
type Expiry struct {
	Session uint64
	// Idle is the time since the client last used it for sure, TTL how long a session that is not used is kept.
	Idle, TTL time.Duration
}

// timeGrain is by how much the cluster may err: it counts milliseconds.
const timeGrain = 5 * time.Millisecond

// checkExpiries returns the sessions that were forgotten too early.
func checkExpiries(ops []Op) (problems []string) {
	for _, op := range ops {
		if e, ok := op.In.(Expiry); ok && e.Idle+timeGrain < e.TTL {
			problems = append(problems, fmt.Sprintf("session %d had expired %s after its last use, it was to live for %s", e.Session, e.Idle, e.TTL))
		}
	}
	return problems
}
