package client

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// maxInstructions is how many different instructions may wait. More are left to metasrv, which repeats them.
const maxInstructions = 1024

// instructionWorker executes instructions: those about one region one at a time.
type instructionWorker struct {
	task *HeartbeatTask
	// queues are executed at the same time; a region has its queue.
	queues []chan offered

	mu sync.Mutex
	// pending has the encoded instructions that wait or run.
	pending map[string]struct{}
}

// offered is an instruction with its encoding, by which it is known.
type offered struct {
	key         string
	instruction *metasrvpb.Instruction
}

func newInstructionWorker(t *HeartbeatTask) *instructionWorker {
	w := &instructionWorker{task: t, pending: map[string]struct{}{}}
	for range max(1, t.cfg.InstructionWorkers) {
		w.queues = append(w.queues, make(chan offered, maxInstructions))
	}
	return w
}

// offer queues an encoded instruction, unless the same one waits or runs. A leadership that is to end does so at once.
func (w *instructionWorker) offer(payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := string(payload)
	if _, ok := w.pending[key]; ok {
		return
	}
	instruction := &metasrvpb.Instruction{}
	if err := proto.Unmarshal(payload, instruction); err != nil {
		w.task.logger.Error("instruction not understood", "error", err)
		return
	}
	if demote := instruction.GetDemoteRegion(); demote != nil && w.task.cfg.Keeper != nil {
		w.task.cfg.Keeper.demote(demote)
	}
	region, _ := subject(instruction)
	select {
	case w.queues[region%uint64(len(w.queues))] <- offered{key, instruction}:
		w.pending[key] = struct{}{}
	default:
	}
}

// run executes the instructions of a queue until ctx ends.
func (w *instructionWorker) run(ctx context.Context, queue <-chan offered) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-queue:
			if ctx.Err() != nil {
				return
			}
			w.execute(ctx, o.instruction)
			w.mu.Lock()
			delete(w.pending, o.key)
			w.mu.Unlock()
		}
	}
}

// execute runs one instruction and takes care that metasrv hears of its outcome.
func (w *instructionWorker) execute(ctx context.Context, instruction *metasrvpb.Instruction) {
	t := w.task
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

// subject returns the replica that an instruction is about, zeros where it is about none or this version doesn't know it.
func subject(instruction *metasrvpb.Instruction) (region, replica uint64) {
	switch i := instruction.GetInstruction().(type) {
	case *metasrvpb.Instruction_DropRegion:
		return i.DropRegion.GetRegionId(), i.DropRegion.GetReplicaId()
	case *metasrvpb.Instruction_CloseRegion:
		return i.CloseRegion.GetRegionId(), i.CloseRegion.GetReplicaId()
	case *metasrvpb.Instruction_FlushRegion:
		return i.FlushRegion.GetRegionId(), i.FlushRegion.GetReplicaId()
	case *metasrvpb.Instruction_OpenRegion:
		return i.OpenRegion.GetConfig().GetRegionId(), i.OpenRegion.GetReplicaId()
	case *metasrvpb.Instruction_PromoteRegion:
		return i.PromoteRegion.GetConfig().GetRegionId(), i.PromoteRegion.GetReplicaId()
	case *metasrvpb.Instruction_DemoteRegion:
		return i.DemoteRegion.GetConfig().GetRegionId(), i.DemoteRegion.GetReplicaId()
	case *metasrvpb.Instruction_CatchUpRegion:
		return i.CatchUpRegion.GetConfig().GetRegionId(), i.CatchUpRegion.GetReplicaId()
	case *metasrvpb.Instruction_AddLearner:
		return i.AddLearner.GetConfig().GetRegionId(), i.AddLearner.GetReplicaId()
	}
	return 0, 0
}
