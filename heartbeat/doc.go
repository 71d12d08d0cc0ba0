// Package heartbeat owns the nodes: the replicated record of each registration, and what the metasrv leader
// knows of them from their beats.
//
// The durable part is small. REGISTER_NODE registers processes and gives each an incarnation; Node, Nodes and
// Incarnation read the records. A beat changes nothing of it unless the node itself changed.
//
// The volatile part lives as long as one term of one metasrv leader and never enters the log. Tracker holds
// the last report of each node and derives from the silence since whether the node is live. Session handles
// the beats of one stream: it registers the node, feeds the Tracker, and answers with a lease and with the
// instructions that follow from the replicated state, of whose changes the Dispatcher tells.
//
// The package knows no transport and starts no goroutine. Which replicas a node should have, and in which role, are
// the router's rules: they come in as Rules. Which node gets a replica is the scheduler's.
package heartbeat
