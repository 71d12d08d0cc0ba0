package heartbeat

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat/phi"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Tracker is what the metasrv leader of one term has heard from the nodes. It begins empty with each term,
// and is safe for concurrent use. All times are by the caller's monotonic clock.
type Tracker struct {
	// cfg is the configuration at the beginning of the term, present what it is now: only the lengths of leases change.
	cfg     Config
	present atomic.Pointer[Config]
	term    uint64
	started time.Time

	mu    sync.RWMutex // guards the map, not what it points to
	nodes map[metasrv.NodeID]*heard

	records  recordCache
	counters *Counters

	attention attention

	askMu sync.Mutex
	askAt time.Time // when the next full report may be asked for without a hurry
}

// heard is what arrived from one node in this term.
type heard struct {
	mu sync.Mutex

	incarnation metasrv.Incarnation
	frontend    bool    // it serves no region
	stream      *stream // the last one opened, nil where it was closed
	lastBeat    time.Time
	beaten      bool
	lastReport  time.Time
	periodEnd   uint64
	period      time.Duration
	stat        *metasrvpb.NodeStat
	rates       Rates
	reports     reports
	anomalies   Anomalies
	group       groupSide
	// history is that of the beats that came when they were due.
	history phi.History
	noted   time.Time

	accord
}

// stream is the identity of one open stream.
type stream struct {
	id          metasrv.NodeID
	incarnation metasrv.Incarnation
	legacy      bool
	node        *heard
	sequence    uint64        // of the last beat, guarded by node.mu
	replaced    chan struct{} // closed when another stream takes the node over
	wake        chan struct{} // has one token when something is to be judged
}

// Rates are per second, over the last report interval.
type Rates struct {
	RCUs, WCUs float64
}

// NodeStatus is a registered node with what the metasrv leader knows of it.
type NodeStatus struct {
	ID metasrv.NodeID
	// Record is shared: it must not be modified.
	Record *storagepb.NodeRecord
	Role   metasrvpb.NodeRole
	State  metasrvpb.NodeState
	// Heard: a beat has arrived in this term. Without it the fields below are zero.
	Heard bool
	// Age is the time since the last beat.
	Age time.Duration
	// Stat is the last report, nil where none has come. Shared: it must not be modified.
	Stat *metasrvpb.NodeStat
	// Rates are zero before the first report whose interval is known.
	Rates Rates
	// Period is the time that the counters of the last report cover, 0 where it is unknown.
	Period time.Duration
	// Replicas is how many the node reports.
	Replicas  int
	Anomalies Anomalies
	// Group is what the node says of itself in its group.
	Group GroupReport
}

// NewTracker returns an empty tracker for a term that this member leads since now. The lengths of leases must be those of a
// state that has all that was committed before the term.
func NewTracker(cfg Config, term uint64, now time.Time) (*Tracker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t := &Tracker{cfg: cfg, term: term, started: now, nodes: map[metasrv.NodeID]*heard{}, counters: &Counters{}, attention: attention{since: now}}
	t.present.Store(&cfg)
	return t, nil
}

// Term returns the term in which what the tracker has heard counts.
func (t *Tracker) Term() uint64 { return t.term }

// Config returns the tracker's configuration as it is now.
func (t *Tracker) Config() Config { return *t.present.Load() }

// Nodes returns every node that is registered in the view, sorted by id, with its state at now.
func (t *Tracker) Nodes(v state.View, now time.Time) ([]NodeStatus, error) {
	records, err := t.records.all(v)
	if err != nil {
		return nil, err
	}
	statuses := make([]NodeStatus, len(records))
	for i, record := range records {
		t.fill(&statuses[i], record, now)
	}
	return statuses, nil
}

// Node returns one registered node with its state at now, or ErrNodeNotFound.
func (t *Tracker) Node(v state.View, id metasrv.NodeID, now time.Time) (NodeStatus, error) {
	record, err := t.records.one(v, id)
	if err != nil {
		return NodeStatus{}, err
	}
	var status NodeStatus
	t.fill(&status, record, now)
	return status, nil
}

// Region returns what a node last reported of a replica, and whether it did.
func (t *Tracker) Region(node metasrv.NodeID, region metasrv.RegionID, replica metasrv.ReplicaID) (RegionReport, bool) {
	h := t.get(node)
	if h == nil {
		return RegionReport{}, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reports.find(region, replica)
}

// AppendRegions appends all that a node last reported to dst, sorted by region, and returns it.
func (t *Tracker) AppendRegions(dst []RegionReport, node metasrv.NodeID) []RegionReport {
	h := t.get(node)
	if h == nil {
		return dst
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(dst, h.reports...)
}

// Anomalies returns the sums over all nodes.
func (t *Tracker) Anomalies() Anomalies {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var sum Anomalies
	for _, h := range t.nodes {
		h.mu.Lock()
		sum.add(h.anomalies)
		h.mu.Unlock()
	}
	return sum
}

func (t *Tracker) get(id metasrv.NodeID) *heard {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.nodes[id]
}

func (t *Tracker) getOrAdd(id metasrv.NodeID) *heard {
	if h := t.get(id); h != nil {
		return h
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.nodes[id]
	if h == nil {
		h = &heard{}
		t.nodes[id] = h
	}
	return h
}

func (t *Tracker) fill(s *NodeStatus, record *storagepb.NodeRecord, now time.Time) {
	s.ID = metasrv.NodeID(record.GetPeer().GetId())
	s.Record = record
	s.Role = RoleOf(record)
	h := t.get(s.ID)
	if h == nil {
		s.State = t.stateOf(false, t.silence(t.started, now))
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.beaten {
		s.State = t.stateOf(false, t.silence(t.started, now))
		return
	}
	s.Heard = true
	s.Age = max(0, now.Sub(h.lastBeat))
	s.State = t.stateOf(true, t.silence(h.lastBeat, now))
	if s.State == metasrvpb.NodeState_NODE_STATE_LIVE && t.suspects(h, now) {
		s.State = metasrvpb.NodeState_NODE_STATE_SUSPECT
	}
	s.Stat = h.stat
	s.Rates = h.rates
	s.Period = h.period
	s.Replicas = len(h.reports)
	s.Anomalies = h.anomalies
	s.Group = h.group.GroupReport
}

// stateOf judges a silence: since the last beat, or since the term began where there was none.
func (t *Tracker) stateOf(heard bool, silence time.Duration) metasrvpb.NodeState {
	switch {
	case !heard && silence < t.cfg.Grace:
		return metasrvpb.NodeState_NODE_STATE_UNKNOWN
	case !heard || silence >= t.cfg.DownAfter:
		return metasrvpb.NodeState_NODE_STATE_DOWN
	case silence >= t.cfg.SuspectAfter:
		return metasrvpb.NodeState_NODE_STATE_SUSPECT
	}
	return metasrvpb.NodeState_NODE_STATE_LIVE
}

// holds says whether the present process of a node is certain to be there: its stream is open, and it is live.
func (t *Tracker) holds(id metasrv.NodeID, now time.Time) bool {
	h := t.get(id)
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stream != nil && h.beaten &&
		t.stateOf(true, t.silence(h.lastBeat, now)) == metasrvpb.NodeState_NODE_STATE_LIVE
}

// replicas returns how many replicas a node last reported in this term.
func (t *Tracker) replicas(id metasrv.NodeID) int {
	h := t.get(id)
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.reports)
}

// connect makes a new stream the one that counts for its node. ErrStaleIncarnation: a later process of the
// node has connected.
func (t *Tracker) connect(id metasrv.NodeID, incarnation metasrv.Incarnation, legacy bool) (*stream, error) {
	h := t.getOrAdd(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if incarnation < h.incarnation {
		return nil, errStale(id, incarnation, h.incarnation)
	}
	if h.stream != nil {
		close(h.stream.replaced)
	}
	if incarnation > h.incarnation {
		// What another process reported says nothing of this one.
		h.incarnation = incarnation
		h.lastReport, h.periodEnd, h.period = time.Time{}, 0, 0
		h.stat, h.rates = nil, Rates{}
		h.history.Forget()
		h.group.forget()
		h.forgetReports()
	}
	h.stream = &stream{
		id: id, incarnation: incarnation, legacy: legacy, node: h,
		replaced: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	return h.stream, nil
}

// disconnect forgets a stream that ended. Its node is judged by its silence alone.
func (t *Tracker) disconnect(s *stream) {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if s.node.stream == s {
		s.node.stream = nil
	}
}

// forgetReports forgets what another process reported. What it had may be missing now. h.mu is held.
func (h *heard) forgetReports() {
	for _, r := range h.reports {
		h.addDirty(r.Region.Table())
	}
	for _, d := range h.differences {
		d.absent = nil // what this one lacks counts from its own first beat
	}
	h.remember()
	h.reports, h.digest, h.everything, h.presumed = nil, 0, true, false
}

// counts returns why a stream no longer counts: ErrStreamReplaced, ErrStaleIncarnation. h.mu is held.
func (h *heard) counts(s *stream) error {
	switch {
	case s.incarnation < h.incarnation:
		return errStale(s.id, s.incarnation, h.incarnation)
	case h.stream != s:
		return metasrv.ErrStreamReplaced.With("node %d opened another stream", s.id)
	}
	return nil
}

// beat is what counts of a request in the judgement of its node.
type beat struct {
	arrived  time.Time
	sequence uint64
	// complete: the reports name all replicas that the node had when it sent the request.
	complete bool
	// agreed: the node's own digest says so.
	agreed bool
	// digested: the request has a digest, said.
	digested bool
	said     uint64
	// unlisted: the request has only the digest of replicas which this metasrv leader has not been told of.
	unlisted bool
	// digest is that of what is judged: of the reports, or said where that is taken for them.
	digest uint64
	// repeated: a request with this number or a later one came before.
	repeated bool
	// group is what the node said of itself in its group.
	group GroupReport
}

// observe takes a beat that arrived at now on a stream. The request's stat belongs to the tracker from then
// on. ErrStreamReplaced, ErrStaleIncarnation: the stream no longer counts.
func (t *Tracker) observe(now time.Time, s *stream, req *metasrvpb.HeartbeatRequest) (beat, error) {
	t.counters.Beats.Add(1)
	t.counters.Lines.Add(uint64(len(req.GetRegionStats())))
	h := s.node
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.counts(s); err != nil {
		return beat{}, err
	}
	if !h.beaten || now.After(h.lastBeat) {
		h.lastBeat, h.beaten = now, true
	}
	h.note(now, t.cfg.Interval)
	b := beat{arrived: now, sequence: req.GetSequence(), digested: req.Digest != nil, said: req.GetDigest()}
	if repeated := s.number(req.GetSequence(), &h.anomalies); repeated {
		b.digest, b.repeated = h.digest, true
		return b, nil
	}
	b.group = h.group.take(req)
	// The early public protocol knows no partial list.
	full := req.GetFullReport() || s.legacy
	b.unlisted = b.digested && b.said != 0 && !full && len(h.reports)+len(req.GetRegionStats()) == 0
	if !b.unlisted || req.GetNodeStat() != nil {
		h.report(t.cfg, now, req, full)
	}
	b.digest = h.digest
	b.agreed = b.digested && req.GetDigest() == h.digest
	if b.digested && !b.agreed && !b.unlisted {
		t.counters.Mismatches.Add(1)
	}
	b.complete = b.agreed || full && !b.digested
	return b, nil
}

// number checks the number of a beat and says whether it was there before. 0 is no number: the early public
// protocol has none.
func (s *stream) number(sequence uint64, a *Anomalies) (repeated bool) {
	switch {
	case sequence == 0:
		return false
	case sequence <= s.sequence:
		a.SequenceRepeats++
		return true
	}
	a.SequenceGaps += sequence - s.sequence - 1
	s.sequence = sequence
	return false
}

// report takes the statistics of a beat.
func (h *heard) report(cfg Config, now time.Time, req *metasrvpb.HeartbeatRequest, full bool) {
	var elapsed time.Duration
	if !h.lastReport.IsZero() {
		elapsed = now.Sub(h.lastReport)
	}
	h.lastReport = now
	h.period, h.periodEnd = cfg.period(req.GetReportInterval(), h.periodEnd, elapsed, &h.anomalies)
	if stat := req.GetNodeStat(); stat != nil {
		sanitize(stat)
		h.stat = stat
		h.rates = Rates{RCUs: perSecond(stat.Rcus, h.period), WCUs: perSecond(stat.Wcus, h.period)}
	}
	var d delta
	if full {
		h.reports, d = h.reports.replace(req.GetRegionStats())
	} else {
		h.reports, d = h.reports.update(req.GetRegionStats(), req.GetRemovedReplicas())
	}
	h.digest += d.digest
	if !h.everything {
		h.addDirty(d.tables...)
	}
}

func errStale(id metasrv.NodeID, incarnation, present metasrv.Incarnation) error {
	return metasrv.ErrStaleIncarnation.With("incarnation %d of node %d is over: another process registered as incarnation %d",
		incarnation, id, present)
}
