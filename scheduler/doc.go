// Package scheduler decides which datanodes get the replicas of new regions.
//
// It is a pure planner: the nodes with their load come in as values, assignments go out, and the same input
// gives the same answer. It reads no state, keeps none, and executes nothing: who calls it gathers the
// NodeLoads from heartbeats and routes, and proposes what it answers.
package scheduler
