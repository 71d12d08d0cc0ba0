package client

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// A request that no member takes is refused before it is sent, so nobody need wonder whether it was executed.
func TestRequestThatIsTooLarge(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	cluster.lead(m)
	c := dial(t, nil, m.addr)
	_, err := c.Store().Put(t.Context(), &metasrvpb.PutRequest{Key: []byte("k"), Value: make([]byte, metasrv.MaxRequestBytes)}, Once())
	wantIs(t, err, metasrv.ErrInvalidArgument)
	if errors.Is(err, metasrv.ErrOutcomeUnknown) || status.Code(err) != codes.InvalidArgument ||
		!strings.Contains(err.Error(), "at most 16777216 are allowed") {
		t.Errorf("refused with %s: %v", status.Code(err), err)
	}
	if n := m.count(putMethod); n != 0 {
		t.Errorf("the member was asked %d times", n)
	}
	// What follows is taken: the refused request holds nothing up.
	if _, err := put(t.Context(), c, "k"); err != nil {
		t.Error(err)
	}
}
