// Package datanode serves the replicas of a store: it writes, replicates and queries them over gRPC, and tells
// metasrv about them by heartbeats.
//
// Replication is simple on purpose. The region leader gives writes an order, stores them, then sends them to all
// followers, and acknowledges when every one has stored them. While a follower is away writes fail; no row is
// acknowledged that a replica lacks. A write that failed may yet be stored and readable: the retry, which has
// the same write id, completes it. DESIGN.md says more.
package datanode
