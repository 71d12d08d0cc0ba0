// Package loadgen runs an operation from many clients at once and measures it. It is what metactl bench and the
// comparison under bench/ have in common.
//
// It owns the clients' loop, the histograms and the report, and what keeps the load cheap beside servers on the same
// machine: requests that are encoded before the run, and answers that are not decoded. It refuses to know what the
// operations do.
package loadgen
