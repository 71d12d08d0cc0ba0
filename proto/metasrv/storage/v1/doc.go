// Package storagepb has the commands and records, as they are in the log and in the state. The messages whose cost counts
// are encoded and decoded by hand (package state, Coded); the others by protobuf, which gives both the same bytes.
package storagepb
