package client

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// maxInstructions is how many different instructions may wait. More are left to metasrv, which repeats them.
const maxInstructions = 1024

// instructionWorker executes instructions one at a time.
type instructionWorker struct {
	task  *HeartbeatTask
	queue chan string

	mu sync.Mutex
	// pending has the encoded instructions that wait or run.
	pending map[string]struct{}
}

func newInstructionWorker(t *HeartbeatTask) *instructionWorker {
	return &instructionWorker{
		task:    t,
		queue:   make(chan string, maxInstructions),
		pending: map[string]struct{}{},
	}
}

// offer queues an encoded instruction, unless the same one waits or runs.
func (w *instructionWorker) offer(payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := string(payload)
	if _, ok := w.pending[key]; ok {
		return
	}
	select {
	case w.queue <- key:
		w.pending[key] = struct{}{}
	default:
	}
}

// run executes instructions until ctx ends.
func (w *instructionWorker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-w.queue:
			if ctx.Err() != nil {
				return
			}
			w.execute(ctx, key)
			w.mu.Lock()
			delete(w.pending, key)
			w.mu.Unlock()
		}
	}
}

// execute runs one instruction and takes care that metasrv hears of its outcome.
func (w *instructionWorker) execute(ctx context.Context, payload string) {
	t := w.task
	instruction := &metasrvpb.Instruction{}
	if err := proto.Unmarshal([]byte(payload), instruction); err != nil {
		t.logger.Error("instruction not understood", "error", err)
		return
	}
	region, replica := subject(instruction)
	err := t.cfg.OnInstruction(ctx, instruction)
	if err == nil {
		// The report that shows it done keeps metasrv from repeating it.
		t.Beat()
		return
	}
	if ctx.Err() != nil {
		return
	}
	t.logger.Warn("instruction failed", "region_id", region, "replica_id", replica, "error", err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ledger.replies = append(t.ledger.replies, &metasrvpb.InstructionReply{
		RegionId: region, ReplicaId: replica, Error: err.Error(),
	})
}

// subject returns the replica that an instruction is about, zeros where this version doesn't know it.
func subject(instruction *metasrvpb.Instruction) (region, replica uint64) {
	if d := instruction.GetDropRegion(); d != nil {
		return d.GetRegionId(), d.GetReplicaId()
	}
	return 0, 0
}
