// Command bench compares metasrv with etcd on this machine: clusters of three processes each on loopback, with default
// settings, under the same load, in turn so that what else the machine does hits both. It prints a line a measurement.
//
// `make bench-etcd` builds all that it needs and runs it; docs/performance.md explains the measurements.
package main
