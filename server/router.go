package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
	"github.com/metasrv/metasrv/scheduler"
)

const (
	// defaultCreationTimeout is the time that a frontend has for creating the replicas of a table.
	defaultCreationTimeout = time.Minute
	// maxPlans bounds how often a table is placed anew because a planned node registered anew meanwhile.
	maxPlans = 4
)

// routerService is the Router service over packages router and scheduler; Watch is in watch.go.
type routerService struct {
	metasrvpb.UnimplementedRouterServer
	*services
	// early serves callers of the early public protocol: it has no commit, so their tables are public at once.
	early bool
}

// Create plans the table's regions, places them on live datanodes and reserves all of it in one command. The
// answer is made from the command's result: where the request was executed before, that is the first plan.
func (s routerService) Create(ctx context.Context, req *metasrvpb.CreateRequest) (*metasrvpb.RouteResponse, error) {
	regions, err := router.PlanRegions(req)
	if err != nil {
		return nil, err
	}
	t := s.term.Load()
	if t == nil {
		return nil, s.notLeader()
	}
	for plans := 1; ; plans++ {
		view := s.node.View()
		var result storagepb.TableResult
		command, done, err := s.plan(ctx, view, t, req, regions)
		if err != nil {
			h, err := s.firstResult(ctx, req.GetHeader(), err, &result)
			if err != nil {
				return nil, err
			}
			return s.created(h, t, &result), nil
		}
		h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE, command, &result)
		done(h.GetRevision())
		// That refusal is of the plan, not of the request: it is not remembered under the request's id.
		if errors.Is(err, metasrv.ErrStaleIncarnation) && plans < maxPlans {
			continue
		}
		if err != nil {
			return nil, err
		}
		return s.created(h, t, &result), nil
	}
}

// created returns the answer to a creation.
func (s routerService) created(h *metasrvpb.ResponseHeader, t *term, result *storagepb.TableResult) *metasrvpb.RouteResponse {
	resp := &metasrvpb.RouteResponse{Header: h}
	record := router.Record{Table: result.GetTable(), Route: result.GetRoute()}
	// As in Route: it is encoded already.
	resp.ProtoReflect().SetUnknown(s.routes.EncodeCreation(s.node.View(), record, t.leadership.Now()))
	return resp
}

// plan returns the command that creates a table with its regions on nodes that are live now. done must be called when
// the command was executed or given up: until then the placement of others counts its replicas.
func (s routerService) plan(
	ctx context.Context, view state.View, t *term, req *metasrvpb.CreateRequest, regions []*storagepb.PlannedRegion,
) (command *storagepb.CreateTable, done func(revision uint64), err error) {
	placed, done, err := s.placed.place(ctx, view, t.tracker, func(c *candidates) ([][]scheduler.Assignment, error) {
		return placeTable(view, req.GetGroup(), c.statuses, c.loads, scheduler.Request{
			Regions: len(regions), Replicas: int(req.GetReplicas()), Rotation: s.rotation.Add(1), AllowLegacy: s.early,
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("place table %s: %w", catalog.NameOf(req.GetTableName()), err)
	}
	command = s.creation(req, regions, placed)
	command.UncleanFailover = req.GetUncleanFailover()
	if view.ClusterVersion() >= router.ChangesSince {
		command.Replicas = req.GetReplicas() // members of an older build don't know it
	}
	return command, done, nil
}

// creation returns the command that creates a table with its regions as they are placed.
func (s routerService) creation(
	req *metasrvpb.CreateRequest, regions []*storagepb.PlannedRegion, placed [][]scheduler.Assignment,
) *storagepb.CreateTable {
	command := &storagepb.CreateTable{
		Name:              req.GetTableName(),
		Schema:            req.GetSchema(),
		PartitionRule:     req.GetPartitionRule(),
		TableInfo:         req.GetTableInfo(),
		CreationToken:     newToken(),
		CreationTimeoutMs: req.GetCreationTimeoutMs(),
		WallTimeMs:        wallTime(),
		Commit:            s.early,
	}
	if command.CreationTimeoutMs == 0 {
		command.CreationTimeoutMs = uint64(defaultCreationTimeout.Milliseconds())
	}
	for i, replicas := range placed {
		command.Regions = append(command.Regions, &storagepb.PlannedRegion{
			Partition: regions[i].GetPartition(),
			Replicas: each(replicas, func(a scheduler.Assignment) *storagepb.PlannedReplica {
				return &storagepb.PlannedReplica{NodeId: uint64(a.Node), Incarnation: uint64(a.Incarnation)}
			}),
		})
	}
	return command
}

// routeCacheBytes bounds the encoded routes that a member keeps.
const routeCacheBytes = 64 << 20

func newEncoder() *router.Encoder {
	return router.NewEncoder(router.NodeRecords{Value: heartbeat.Value, Address: heartbeat.Address}, routeCacheBytes)
}

// Route returns the routes of tables. They are encoded once a version, not for each answer.
func (s routerService) Route(ctx context.Context, req *metasrvpb.RouteRequest) (*metasrvpb.RouteResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	routes, err := s.routes.Encode(view.View, req.GetTableNames(), req.GetTableIds())
	if err != nil {
		return nil, err
	}
	resp := &metasrvpb.RouteResponse{Header: view.header()}
	// What the message doesn't know goes to the wire as it is, and this is encoded already.
	resp.ProtoReflect().SetUnknown(routes)
	return resp, nil
}

func (s routerService) Delete(ctx context.Context, req *metasrvpb.DeleteRequest) (*metasrvpb.RouteResponse, error) {
	if err := catalog.NameOf(req.GetTableName()).Validate(); err != nil {
		return nil, inField("table_name", err)
	}
	var result storagepb.TableResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_DROP_TABLE,
		&storagepb.DropTable{Name: req.GetTableName()}, &result)
	if err != nil {
		return nil, err
	}
	b := router.NewBuilder(addresses(s.node.View()))
	route := b.Add(router.Record{Table: result.GetTable(), Route: result.GetRoute()})
	return &metasrvpb.RouteResponse{Header: h, Peers: b.Peers(), TableRoutes: []*metasrvpb.TableRoute{route}}, nil
}

// addresses returns the function from a node's id to its address, "" where it is not registered.
func addresses(view state.View) func(metasrv.NodeID) string {
	return func(id metasrv.NodeID) string { return heartbeat.Address(heartbeat.Value(view, id)) }
}

// inField puts the field of a message before the field of an error in it.
func inField(field string, err error) error {
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok || e.Field == "" {
		return err
	}
	c := *e
	c.Field = field + "." + e.Field
	return &c
}

// newToken returns a random number that names one creation.
func newToken() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) | 1
}
