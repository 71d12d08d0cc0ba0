package linear

import (
	"math"
	"sync"
)

// Op is one operation of a client with its answer.
type Op struct {
	Client int
	// Call and Return order the operations: those of which one returned before the other was called are in this order.
	Call, Return int64
	// In is a KVCall, TableCall, IDCall or Expiry. Out is the answer of the same family; nil where the outcome is unknown: the
	// operation may have taken effect, may do so later, or never.
	In, Out any
	// Revision is that of the answer, 0 where it names none.
	Revision uint64
	// Stale: the answer may be old. MinRevision is what it must at least have reached.
	Stale       bool
	MinRevision uint64
	// Member names the process that answered, another one after each start.
	Member string
}

// Known reports whether the operation was answered.
func (o *Op) Known() bool { return o.Out != nil }

// History collects operations. It is safe for concurrent use; the zero value is ready.
type History struct {
	mu    sync.Mutex
	clock int64
	ops   []Op
}

// Pending is an operation that has not been answered.
type Pending struct {
	h  *History
	op Op
}

// Begin notes that a client calls an operation.
func (h *History) Begin(client int, in any) *Pending {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return &Pending{h: h, op: Op{Client: client, Call: h.clock, In: in}}
}

// End notes the answer. meta, if it is not nil, fills in what is known beside it.
func (p *Pending) End(out any, meta func(*Op)) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.h.clock++
	p.op.Return, p.op.Out = p.h.clock, out
	if meta != nil {
		meta(&p.op)
	}
	p.h.ops = append(p.h.ops, p.op)
}

// Unknown notes that the client gave up without knowing what became of a change.
func (p *Pending) Unknown() {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.op.Return = math.MaxInt64
	p.h.ops = append(p.h.ops, p.op)
}

// Ops returns the operations in the order in which they ended. Those that were neither answered nor given up, such as
// reads that failed and changes that were refused for sure, are not among them.
func (h *History) Ops() []Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Op(nil), h.ops...)
}
