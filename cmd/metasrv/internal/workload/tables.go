package workload

import (
	"context"
	"errors"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/client/clienttest"
	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// creationTimeoutMs is longer than any history: no creation is given up but by a worker.
const creationTimeoutMs = 24 * 60 * 60 * 1000

// tableOperation makes one operation on a table's name.
func (w *worker) tableOperation(ctx context.Context) {
	name := w.Tables[w.random.IntN(len(w.Tables))]
	switch {
	case len(w.creations) > 0 && w.chance(70):
		first := w.creations[0]
		w.creations = w.creations[1:]
		w.endCreation(ctx, first)
	case w.chance(35):
		w.create(ctx, name)
	case w.chance(50):
		w.drop(ctx, name)
	default:
		w.get(ctx, name)
	}
}

func (w *worker) create(ctx context.Context, name string) {
	request := clienttest.HashTable(name, 1, 1)
	request.CreationTimeoutMs = creationTimeoutMs
	p := w.History.Begin(w.id, linear.TableCall{Op: linear.CreateTable, Name: name})
	answer, err := w.Client.Router().Create(ctx, request)
	if !w.endTable(p, answer.GetTableRoutes(), err, metasrv.ErrTableExists) {
		return
	}
	route := answer.GetTableRoutes()[0]
	commit := &metasrvpb.CommitTableRequest{TableId: route.GetTable().GetId(), CreationToken: route.GetCreationToken()}
	for _, r := range route.GetRegionRoutes() {
		node := answer.GetPeers()[r.GetLeaderPeerIndex()].GetId()
		commit.Replicas = append(commit.Replicas, &metasrvpb.CreatedReplica{
			RegionId: r.GetRegion().GetId(), ReplicaId: r.GetLeaderReplicaId(), NodeId: node, Incarnation: w.Incarnation(node),
		})
	}
	w.creations = append(w.creations, creation{name, commit})
}

// endCreation commits a creation, or gives it up.
func (w *worker) endCreation(ctx context.Context, c creation) {
	id := c.commit.GetTableId()
	if w.chance(20) {
		p := w.History.Begin(w.id, linear.TableCall{Op: linear.AbortTable, Name: c.name, ID: id})
		_, err := w.Client.Catalog().AbortTable(ctx, &metasrvpb.AbortTableRequest{
			TableId: id, CreationToken: c.commit.GetCreationToken(), Reason: "given up by the test",
		})
		w.end(p, id, err, metasrv.ErrCreationEnded, metasrv.ErrTableNotFound)
		return
	}
	p := w.History.Begin(w.id, linear.TableCall{Op: linear.CommitTable, Name: c.name, ID: id})
	_, err := w.Client.Catalog().CommitTable(ctx, c.commit)
	w.end(p, id, err, metasrv.ErrCreationEnded, metasrv.ErrTableNotFound)
}

func (w *worker) drop(ctx context.Context, name string) {
	p := w.History.Begin(w.id, linear.TableCall{Op: linear.DropTable, Name: name})
	answer, err := w.Client.Router().Delete(ctx, &metasrvpb.DeleteRequest{TableName: clienttest.TableName(name)})
	w.endTable(p, answer.GetTableRoutes(), err, metasrv.ErrTableNotFound)
}

// get reads a table, of the metasrv leader or of any member. A read that fails says nothing.
func (w *worker) get(ctx context.Context, name string) {
	request := &metasrvpb.GetTableRequest{TableName: clienttest.TableName(name)}
	p := w.History.Begin(w.id, linear.TableCall{Op: linear.GetTable, Name: name})
	answer, err := metasrvpb.NewCatalogClient(w.member().Conn).GetTable(ctx, request)
	switch {
	case err == nil:
		p.End(linear.TableAnswer{ID: answer.GetTable().GetId()}, nil)
	case client.Reason(err) == metasrv.ErrTableNotFound.Reason:
		p.End(linear.TableAnswer{Refused: true}, nil)
	}
}

func (w *worker) endTable(p *linear.Pending, routes []*metasrvpb.TableRoute, err error, refusals ...error) bool {
	var id uint64
	if err == nil {
		id = routes[0].GetTable().GetId()
	}
	return w.end(p, id, err, refusals...)
}

// end notes the outcome of a call of the client library. refusals are answers of the model; after other refusals
// nothing has happened.
func (w *worker) end(p *linear.Pending, id uint64, err error, refusals ...error) (done bool) {
	switch {
	case err == nil:
		p.End(linear.TableAnswer{ID: id}, nil)
		return true
	case errors.Is(err, metasrv.ErrOutcomeUnknown):
		p.Unknown()
		return false
	}
	for _, refusal := range refusals {
		if errors.Is(err, refusal) {
			p.End(linear.TableAnswer{Refused: true}, nil)
		}
	}
	return false
}

// creation is a table that is reserved.
type creation struct {
	name   string
	commit *metasrvpb.CommitTableRequest
}
