package local

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Member is a member of metasrv.
type Member struct {
	ID string
	// Addresses that it listens on.
	GRPC, Raft, HTTP string
	// DialGRPC and DialRaft are where others reach it: the same, unless a proxy stands between.
	DialGRPC, DialRaft string
	// Process is its present life, nil where it has none.
	Process *Process
}

// Datanode is a datanode of tsdb.
type Datanode struct {
	ID uint64
	// Addr is where it listens, Dial where others reach it.
	Addr, Dial string
	Dir        string
	// Zone is its failure domain, empty where it has none.
	Zone string
	// Journal is a file for what it acknowledges and stores, empty for none.
	Journal string
	// Environment is added to that of its process.
	Environment []string
	Process     *Process
}

// Frontend is a frontend of tsdb.
type Frontend struct {
	ID          uint64
	MySQL, HTTP string
	Process     *Process
}

// Status asks the member for its status.
func (m *Member) Status(ctx context.Context) (*metasrvpb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := grpc.NewClient(m.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return metasrvpb.NewClusterClient(conn).Status(ctx, &metasrvpb.StatusRequest{})
}

// Ready reports whether the member says so itself.
func (m *Member) Ready(ctx context.Context) bool { return answersOK(ctx, "http://"+m.HTTP+"/readyz") }

// Healthy reports whether the frontend takes requests.
func (f *Frontend) Healthy(ctx context.Context) bool {
	return answersOK(ctx, "http://"+f.HTTP+"/health")
}

func answersOK(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
