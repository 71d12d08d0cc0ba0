package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Config says where a store is. Folder and NodeID are needed.
type Config struct {
	// Folder is made if it doesn't exist.
	Folder string
	// NodeID is the node that the folder belongs to, for ever.
	NodeID metasrv.NodeID
	// MaxOpen is the number of replicas whose files stay open while nobody uses them. Default: what the process may open is
	// enough for, 1,024 at most.
	MaxOpen int
	// Logger gets what was found damaged. Discarded if nil.
	Logger *slog.Logger
}

// Store is the replicas of one node. Its methods may be called by many goroutines.
type Store struct {
	folder *folder
	logger *slog.Logger
	open   *openFiles

	mu       sync.Mutex
	replicas map[metasrv.RegionID]*Replica
	// changing holds the regions whose file is being made or deleted.
	changing map[metasrv.RegionID]bool
}

// Open locks the folder and reads who its replicas are. It returns ErrLocked where another process has the
// folder. Damaged replicas are logged and listed by Replicas; they don't keep the others from being served.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.NodeID == 0 {
		return nil, errors.New("store: node id is 0")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := openFolder(c.Folder, c.NodeID)
	if err != nil {
		return nil, err
	}
	s := &Store{
		folder: f, logger: c.Logger, open: newOpenFiles(cmp.Or(c.MaxOpen, defaultOpen())),
		replicas: map[metasrv.RegionID]*Replica{}, changing: map[metasrv.RegionID]bool{},
	}
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) load(ctx context.Context) error {
	if err := s.folder.sweep(); err != nil {
		return err
	}
	names, err := s.folder.replicaFiles()
	if err != nil {
		return err
	}
	for _, name := range names {
		region, id, ok := parseFileName(name)
		if !ok {
			s.logger.Error("file in the data folder is no replica and is ignored", "file", name)
			continue
		}
		r := newReplica(s, region, id)
		if other := s.replicas[region]; other != nil {
			err := fmt.Errorf("%w: %s and %s are both replicas of region %s", ErrDamaged, other.name, name, region)
			other.markDamaged(err)
			r.markDamaged(err)
			continue
		}
		s.replicas[region] = r
		if err := r.load(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.markDamaged(err)
		}
	}
	return nil
}

// Close waits for the uses of replicas that are under way, and releases the folder.
func (s *Store) Close() error {
	s.mu.Lock()
	replicas := s.replicas
	s.replicas = map[metasrv.RegionID]*Replica{}
	s.mu.Unlock()
	var errs []error
	for _, r := range replicas {
		errs = append(errs, r.retire(context.Background()))
	}
	return errors.Join(append(errs, s.folder.close())...)
}

// StorageUUID names the folder; a copy of it has the same.
func (s *Store) StorageUUID() string { return s.folder.owner.StorageUUID }

// ClusterID returns the cluster that the folder belongs to, 0 before the first BindCluster.
func (s *Store) ClusterID() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.folder.owner.ClusterID
}

// BindCluster makes the folder one of a cluster, for ever, and returns when that is durable. Another cluster hands
// out the same ids for other replicas: ErrOtherCluster where the folder belongs to one.
func (s *Store) BindCluster(id uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.folder.owner
	switch o.ClusterID {
	case id:
		return nil
	case 0:
		o.ClusterID = id
		return s.folder.setOwner(o)
	}
	return fmt.Errorf("data folder %s belongs to cluster %d, not to %d: %w", s.folder.path, o.ClusterID, id, ErrOtherCluster)
}

// Path returns the absolute path of the folder.
func (s *Store) Path() string { return s.folder.path }

// Replica returns the replica of a region that is here, ErrNotFound where there is none. It may be damaged.
func (s *Store) Replica(region metasrv.RegionID) (*Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.replicas[region]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("region %s: %w", region, ErrNotFound)
}

// Replicas returns all replicas, also the damaged ones, in the order of their regions.
func (s *Store) Replicas() []*Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Replica, 0, len(s.replicas))
	for _, r := range s.replicas {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *Replica) int { return cmp.Compare(a.Region(), b.Region()) })
	return out
}

// Create makes an empty replica and returns it once it is durable. Repeated with the same definition it returns
// the replica that is here. Another replica of the region, a damaged one, or another definition is ErrExists.
func (s *Store) Create(ctx context.Context, definition *tsdbpb.CreateRegionRequest) (*Replica, error) {
	if err := checkDefinition(definition); err != nil {
		return nil, err
	}
	region := metasrv.RegionID(definition.GetRoute().GetRegionId())
	s.mu.Lock()
	existing := s.replicas[region]
	if existing == nil && s.changing[region] {
		s.mu.Unlock()
		return nil, metasrv.ErrNotReady.With("region %s is being created or dropped", region)
	}
	if existing != nil {
		s.mu.Unlock()
		return existing, existing.sameAs(definition)
	}
	s.changing[region] = true
	s.mu.Unlock()

	r := newReplica(s, region, metasrv.ReplicaID(definition.GetRoute().GetReplicaId()))
	err := r.create(ctx, proto.CloneOf(definition))

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.changing, region)
	if err != nil {
		return nil, fmt.Errorf("create replica %s of region %s: %w", r.id, region, err)
	}
	s.replicas[region] = r
	return r, nil
}

// Drop deletes a replica, also a damaged one, and returns whether there was one. Another replica id than the
// one that is here is ErrNotFound, a replica at a newer epoch than leaderEpoch ErrStaleEpoch. Uses under way are
// waited for until ctx ends; then the replica is still there, serves nothing, and can be dropped again.
func (s *Store) Drop(
	ctx context.Context, region metasrv.RegionID, id metasrv.ReplicaID, leaderEpoch uint64,
) (existed bool, err error) {
	s.mu.Lock()
	r := s.replicas[region]
	switch {
	case s.changing[region]:
		err = metasrv.ErrNotReady.With("region %s is being created or dropped", region)
	case r == nil:
	case r.id != id:
		err = fmt.Errorf("region %s: the replica here is %s, not %s: %w", region, r.id, id, ErrNotFound)
	case r.State().LeaderEpoch > leaderEpoch:
		err = fmt.Errorf("region %s: replica is at epoch %d, not %d: %w",
			region, r.State().LeaderEpoch, leaderEpoch, ErrStaleEpoch)
	}
	if r == nil || err != nil {
		s.mu.Unlock()
		return false, err
	}
	delete(s.replicas, region)
	s.changing[region] = true
	s.mu.Unlock()

	if err = r.retire(ctx); err == nil {
		err = s.folder.remove(r.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.changing, region)
	if err != nil {
		s.replicas[region] = r // so that it can be dropped again
		return true, fmt.Errorf("drop replica %s of region %s: %w", id, region, err)
	}
	return true, nil
}

func checkDefinition(d *tsdbpb.CreateRegionRequest) error {
	r := d.GetRoute()
	for field, v := range map[string]uint64{
		"route.region_id": r.GetRegionId(), "route.replica_id": r.GetReplicaId(),
		"route.leader_epoch": r.GetLeaderEpoch(),
	} {
		if v == 0 {
			return metasrv.InvalidArgument(field, "is missing")
		}
	}
	if role := d.GetRole(); role != metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER &&
		role != metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER && role != metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER {
		return metasrv.InvalidArgument("role", "%s is neither leader nor follower nor learner", role)
	}
	for _, p := range d.GetPeers() {
		if p.GetReplicaId() == 0 || p.GetReplicaId() == r.GetReplicaId() || p.GetPeer().GetAddr() == "" {
			return metasrv.InvalidArgument("peers", "%v is no other replica with an address", p)
		}
	}
	_, err := newTable(d.GetSchema())
	return err
}
