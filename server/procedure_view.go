package server

import (
	"errors"
	"strings"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// sight is one look at the state and at what nodes report, for many procedures: each table is read once.
type sight struct {
	state.View
	term   *term
	now    time.Time
	tables map[metasrv.TableID]*storagepb.RouteRecord
	// decoded has tables of earlier looks. What comes of it must not be modified.
	decoded *router.Decoded
	known   map[metasrv.NodeID]procedure.Node
}

func (s *services) lookAt(t *term, view state.View) *sight {
	return &sight{
		View: view, term: t, now: time.Now(), decoded: &router.Decoded{},
		tables: map[metasrv.TableID]*storagepb.RouteRecord{}, known: map[metasrv.NodeID]procedure.Node{},
	}
}

func (d *driver) look(view state.View) *sight {
	seen := d.lookAt(d.t, view)
	seen.decoded = &d.decoded
	return seen
}

// route returns the route of a PUBLIC table, nil where there is none.
func (s *sight) route(id metasrv.TableID) (*storagepb.RouteRecord, error) {
	if route, known := s.tables[id]; known {
		return route, nil
	}
	record, err := s.decoded.Get(s.View, id)
	if err != nil && !errors.Is(err, metasrv.ErrTableNotFound) {
		return nil, err
	}
	s.tables[id] = record.Route
	return record.Route, nil
}

// region returns a region of a PUBLIC table, nil where there is none.
func (s *sight) region(id metasrv.RegionID) (*storagepb.RegionRecord, error) {
	route, err := s.route(id.Table())
	if err != nil {
		return nil, err
	}
	for _, r := range route.GetRegions() {
		if r.RegionId == uint64(id) {
			return r, nil
		}
	}
	return nil, nil
}

// node says what is known of a node.
func (s *sight) node(id metasrv.NodeID) procedure.Node {
	if n, known := s.known[id]; known {
		return n
	}
	n := procedure.Node{}
	if status, err := s.term.tracker.Node(s.View, id, s.now); err == nil {
		n = nodeSeen(status)
	}
	s.known[id] = n
	return n
}

func nodeSeen(status heartbeat.NodeStatus) procedure.Node {
	return procedure.Node{
		Registered:  true,
		Live:        status.State == metasrvpb.NodeState_NODE_STATE_LIVE,
		Down:        status.State == metasrvpb.NodeState_NODE_STATE_DOWN,
		Unheard:     status.State == metasrvpb.NodeState_NODE_STATE_UNKNOWN,
		Draining:    status.Record.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED,
		Incarnation: metasrv.Incarnation(status.Record.GetIncarnation()),
	}
}

func (s *sight) lost(r *storagepb.ReplicaRecord) bool {
	present, ok := heartbeat.Registration(s.View, metasrv.NodeID(r.NodeId))
	return router.Lost(r, present, ok)
}

// procedure returns what a procedure that works on a region sees.
func (s *sight) procedure(region *storagepb.RegionRecord, leaseOver bool) procedure.View {
	return procedure.View{
		Region: region, Now: s.term.leadership.Now(), Node: s.node, Lost: s.lost, LeaseOver: leaseOver,
		Limits: procedure.DefaultLimits(s.term.tracker.Config().Lease),
		Report: func(r *storagepb.ReplicaRecord) procedure.Report {
			report, ok := s.term.tracker.Region(metasrv.NodeID(r.NodeId), metasrv.RegionID(region.RegionId), metasrv.ReplicaID(r.ReplicaId))
			return procedure.Report{Reported: ok, Role: report.Role, LeaderEpoch: report.LeaderEpoch, Demoted: report.Demoted}
		},
	}
}

func stepName(s metasrvpb.ProcedureStep) string {
	return enumName(s.String(), "PROCEDURE_STEP_")
}

func stateName(s metasrvpb.ProcedureState) string {
	return enumName(s.String(), "PROCEDURE_STATE_")
}

func enumName(s, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s, prefix), "_", " "))
}
