package raftfsm

import (
	"encoding/binary"
	"fmt"
	"io"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// greeting stands first on a connection of raft, behind the byte that says so: raft itself knows nothing of clusters, and
// would take a log from whoever has the higher term.
type greeting struct {
	identity
	// addr is the raft address at which the member that dials is dialled.
	addr string
}

func (g greeting) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{protocolRaft}, g.cluster)
	b = binary.BigEndian.AppendUint64(b, g.incarnation)
	addr := g.addr[:min(len(g.addr), 255)]
	return append(append(b, byte(len(addr))), addr...)
}

// readGreeting reads what follows the byte of the protocol.
func readGreeting(r io.Reader) (greeting, error) {
	var fixed [17]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return greeting{}, err
	}
	addr := make([]byte, fixed[16])
	if _, err := io.ReadFull(r, addr); err != nil {
		return greeting{}, err
	}
	return greeting{
		identity: identity{binary.BigEndian.Uint64(fixed[:]), binary.BigEndian.Uint64(fixed[8:])},
		addr:     string(addr),
	}, nil
}

// greet returns the greeting of this member.
func (n *Node) greet() greeting { return greeting{identity: n.identity(), addr: n.cfg.Member.RaftAddr} }

// addressed puts into a request who asks whom.
func (n *Node) addressed(to string, request *peerpb.Request) *peerpb.Request {
	own := n.settledIdentity()
	request.ClusterId, request.Incarnation, request.To = own.cluster, own.incarnation, to
	return request
}

// isAddressed returns an error if a request is not for this member: it would take the term of another cluster for a vote of
// confidence, its index for that of a barrier, its hashes for those of a wrong state.
func (n *Node) isAddressed(r *peerpb.Request) error {
	if r.GetTo() != "" && r.GetTo() != n.cfg.MemberID {
		return fmt.Errorf("this is member %s, not %s", n.cfg.MemberID, r.GetTo())
	}
	asks, own := identity{r.GetClusterId(), r.GetIncarnation()}, n.settledIdentity()
	if asks.cluster != 0 && own.cluster != 0 && asks != own {
		return fmt.Errorf("member %s is of cluster %d in its life %016x, not of cluster %d in its life %016x",
			n.cfg.MemberID, own.cluster, own.incarnation, asks.cluster, asks.incarnation)
	}
	return nil
}

// settledIdentity returns the identity, without looking at the state once it is known: while a member runs, it never
// becomes part of another cluster nor of another life of its own.
func (n *Node) settledIdentity() identity {
	if settled := n.settled.Load(); settled != nil {
		return *settled
	}
	own := n.identity()
	if own.cluster != 0 {
		n.settled.Store(&own)
	}
	return own
}

// admit returns an error if a member must not speak raft to this one: it is of another cluster or of another life of
// this one, or this member has not been let in yet. Who votes or acknowledges entries without being known to be new
// could do so for a second time.
func (n *Node) admit(g greeting) error {
	own := n.identity()
	if own.cluster != 0 && g.cluster != 0 && own != g.identity {
		return fmt.Errorf("%s is of cluster %d in its life %016x, this member of cluster %d in its life %016x",
			g.addr, g.cluster, g.incarnation, own.cluster, own.incarnation)
	}
	if !n.admitted.Load() {
		n.knocked(g.addr)
		return fmt.Errorf("%s speaks to this member before it may take part", g.addr)
	}
	return nil
}
