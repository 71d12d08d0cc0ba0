// Package lock has names that one holder has at a time: locks, and the offices for which candidates stand in elections.
// Both are claims on a name, in the order in which they came; the first one holds it. A lock is an election without a
// value.
//
// A holder claims names and keeps them as long as it renews itself. Holders expire in leader time, by a command that names
// the renewal which was the last (rule 5 of CORRECTNESS.md). Each time that a claim becomes the first it gets a fencing
// token, the revision at that moment (rule 7): what is guarded by the name refuses tokens below one that it has seen.
package lock
