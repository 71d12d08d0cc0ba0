// Package routing is the answer of a datanode to a request that was routed wrongly: INVALID_ROUTE.
package routing

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
)

// Domain is the domain of ErrorInfo in the answers of datanodes.
const Domain = "tsdb"

const reason = "INVALID_ROUTE"

// Invalid says that a request was routed by a route that isn't the datanode's. It travels as FAILED_PRECONDITION
// with ErrorInfo.
type Invalid struct {
	// Message says what differs.
	Message string
	Region  metasrv.RegionID
	// Of the replica that the datanode has; 0 where it has none.
	Replica      metasrv.ReplicaID
	LeaderEpoch  uint64
	ConfVersion  uint64
	RouteVersion uint64
}

// Error returns the message, preceded by the region.
func (e *Invalid) Error() string { return fmt.Sprintf("region %s: %s", e.Region, e.Message) }

// GRPCStatus returns the status that FromError reads.
func (e *Invalid) GRPCStatus() *status.Status {
	s := status.New(codes.FailedPrecondition, e.Error())
	metadata := map[string]string{
		"region_id": strconv.FormatUint(uint64(e.Region), 10),
		"message":   e.Message,
	}
	for key, v := range map[string]uint64{
		"replica_id":    uint64(e.Replica),
		"leader_epoch":  e.LeaderEpoch,
		"conf_version":  e.ConfVersion,
		"route_version": e.RouteVersion,
	} {
		if v != 0 {
			metadata[key] = strconv.FormatUint(v, 10)
		}
	}
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: Domain, Metadata: metadata})
	if err != nil {
		return s
	}
	return detailed
}

// FromError returns the Invalid in an error of a datanode's RPC, and whether there is one.
func FromError(err error) (*Invalid, bool) {
	if e, ok := errors.AsType[*Invalid](err); ok {
		return e, true
	}
	for _, d := range status.Convert(err).Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetReason() != reason || info.GetDomain() != Domain {
			continue
		}
		number := func(key string) uint64 {
			v, _ := strconv.ParseUint(info.GetMetadata()[key], 10, 64) // absent is 0
			return v
		}
		return &Invalid{
			Message: info.GetMetadata()["message"], Region: metasrv.RegionID(number("region_id")),
			Replica: metasrv.ReplicaID(number("replica_id")), LeaderEpoch: number("leader_epoch"),
			ConfVersion: number("conf_version"), RouteVersion: number("route_version"),
		}, true
	}
	return nil, false
}
