// Package workload is the clients of a cluster under test: they make operations of every kind, by the client library
// and by themselves, against the metasrv leader and any other member, and note what they saw for package linear.
package workload
