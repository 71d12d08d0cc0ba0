package clienttest

import (
	"context"
	"fmt"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// TableName returns the full name of a table in the default schema.
func TableName(name string) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: "greptime", SchemaName: "public", TableName: name}
}

// HashTable returns a request for a table with a number of regions.
func HashTable(name string, regions, replicas uint32) *metasrvpb.CreateRequest {
	return &metasrvpb.CreateRequest{
		TableName: TableName(name),
		Schema: &metasrvpb.TableSchema{
			Columns: []*metasrvpb.Column{
				{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING},
				{Name: "ts", Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP},
			},
			PrimaryKey: []string{"host", "ts"},
			TimeIndex:  "ts",
		},
		PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
			Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: regions},
		}},
		Replicas: replicas,
	}
}

// CreateReplicas makes the replicas of a creation on the datanodes, by node id, and returns what CommitTable asks
// for.
func CreateReplicas(creation *metasrvpb.RouteResponse, nodes map[uint64]*Datanode) (*metasrvpb.CommitTableRequest, error) {
	route := creation.TableRoutes[0]
	commit := &metasrvpb.CommitTableRequest{TableId: route.Table.Id, CreationToken: route.CreationToken}
	for _, r := range route.RegionRoutes {
		indexes := append([]uint64{r.LeaderPeerIndex}, r.FollowerPeerIndexes...)
		replicas := append([]uint64{r.LeaderReplicaId}, r.FollowerReplicaIds...)
		for i, index := range indexes {
			peer := creation.Peers[index]
			node, ok := nodes[peer.Id]
			if !ok {
				return nil, fmt.Errorf("region %d was placed on unknown node %d", r.Region.Id, peer.Id)
			}
			node.Create(r.Region.Id, replicas[i], r.LeaderEpoch, r.ConfVersion)
			commit.Replicas = append(commit.Replicas, &metasrvpb.CreatedReplica{
				RegionId: r.Region.Id, ReplicaId: replicas[i], NodeId: peer.Id, Incarnation: node.Incarnation(),
			})
		}
	}
	return commit, nil
}

// CreateTable goes the whole way of a frontend: reserve, create the replicas, commit.
func CreateTable(ctx context.Context, c *client.Client, nodes map[uint64]*Datanode, request *metasrvpb.CreateRequest) (*metasrvpb.Table, error) {
	creation, err := c.Router().Create(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	commit, err := CreateReplicas(creation, nodes)
	if err != nil {
		return nil, err
	}
	committed, err := c.Catalog().CommitTable(ctx, commit)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return committed.Table, nil
}
