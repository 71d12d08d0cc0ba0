// Package raftfsm is one member of the replicated state machine: raft, its transport and log, the entry codec,
// the image of the state in memory and on disk, barriers, the change feed, and the life of the metasrv leader.
// It knows no rule of any domain: commands are executed by the appliers that it is given, in package machine.
//
// A Node implements the four interfaces that the rest of the program sees of consensus: state.Proposer,
// state.Barrier, state.Viewer and state.Feed.
//
// DESIGN.md in this folder explains the machine.
package raftfsm
