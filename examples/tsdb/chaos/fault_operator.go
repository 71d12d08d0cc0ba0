package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

// operatorFaults are what operators do to a cluster. That they are refused, or fail because of other faults, is no matter.
var operatorFaults = []fault{
	{"transfer region leader", 4, func(ctx context.Context, f *faults, r *rand.Rand) string {
		region := f.anyRegion(ctx, r)
		return f.procedure(ctx, fmt.Sprintf("region %d", region), 15*time.Second, &metasrvpb.StartProcedureRequest{
			Procedure: &metasrvpb.StartProcedureRequest_TransferRegionLeader{
				TransferRegionLeader: &metasrvpb.TransferRegionLeader{RegionId: region},
			},
		})
	}},
	{"migrate region", 4, func(ctx context.Context, f *faults, r *rand.Rand) string {
		region := f.anyRegion(ctx, r)
		return f.procedure(ctx, fmt.Sprintf("region %d", region), 30*time.Second, &metasrvpb.StartProcedureRequest{
			Procedure: &metasrvpb.StartProcedureRequest_MigrateRegion{MigrateRegion: &metasrvpb.MigrateRegion{RegionId: region}},
		})
	}},
	{"drain datanode", 2, func(ctx context.Context, f *faults, r *rand.Rand) string {
		d := f.cluster.Datanodes[r.IntN(len(f.cluster.Datanodes))]
		what := f.procedure(ctx, datanodeName(d), 30*time.Second, &metasrvpb.StartProcedureRequest{
			Procedure: &metasrvpb.StartProcedureRequest_DrainNode{DrainNode: &metasrvpb.DrainNode{NodeId: d.ID}},
		})
		f.undrain(d)
		return what
	}},
}

// anyRegion chooses a region, 0 where metasrv doesn't answer.
func (f *faults) anyRegion(ctx context.Context, r *rand.Rand) uint64 {
	n := r.IntN(1 << 20)
	regions, err := f.regions(ctx)
	if err != nil || len(regions) == 0 {
		return 0
	}
	return regions[n%len(regions)].GetRegionId()
}

// procedure starts a procedure and waits until it has ended, so long at most; then it is cancelled.
func (f *faults) procedure(ctx context.Context, on string, patience time.Duration, request *metasrvpb.StartProcedureRequest) string {
	request.Reason = "chaos"
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	started, err := f.client.Cluster().StartProcedure(call, request)
	if err != nil {
		return ""
	}
	began := time.Now()
	p := started.GetProcedure()
	for !ended(p) && time.Since(began) < patience && sleep(ctx, 200*time.Millisecond) {
		p = f.ask(ctx, p)
	}
	if !ended(p) {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, err := f.client.Cluster().CancelProcedure(call, &metasrvpb.CancelProcedureRequest{ProcedureId: p.GetProcedureId(), Reason: "chaos"})
		return fmt.Sprintf("%s, cancelled after %s, when it waited for %s (%v)", on, time.Since(began).Round(time.Millisecond), p.GetWaitingFor(), err)
	}
	return fmt.Sprintf("%s, %s after %s %s", on, p.GetState(), time.Since(began).Round(time.Millisecond), p.GetError())
}

// ask returns a procedure as it is now, where metasrv answers.
func (f *faults) ask(ctx context.Context, p *metasrvpb.Procedure) *metasrvpb.Procedure {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	answer, err := f.client.Cluster().GetProcedure(ctx, &metasrvpb.GetProcedureRequest{ProcedureId: p.GetProcedureId()})
	if err != nil {
		return p
	}
	return answer.GetProcedure()
}

func ended(p *metasrvpb.Procedure) bool {
	switch p.GetState() {
	case metasrvpb.ProcedureState_PROCEDURE_STATE_DONE, metasrvpb.ProcedureState_PROCEDURE_STATE_FAILED,
		metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED:
		return true
	}
	return false
}

// undrain has a node get replicas again. It is repeated until metasrv answers: the run would end with a drained node.
func (f *faults) undrain(d *local.Datanode) {
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err = f.client.Cluster().UndrainNode(ctx, &metasrvpb.UndrainNodeRequest{NodeId: d.ID})
		cancel()
		if err == nil {
			return
		}
		sleep(context.Background(), 200*time.Millisecond)
	}
	f.violated(fmt.Errorf("%s can't be undrained: %w", datanodeName(d), err))
}
