// Package machine is the pure core of the replicated state machine: entries in, state and results out. It has
// no clock, disk, network or goroutine, and no rule of any domain: commands are executed by the appliers that
// it is given.
//
// Every member feeds it the same entries in the same order and gets the same state, the same results and the
// same revisions.
package machine
