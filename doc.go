// Package metasrv holds the words that all parts of the metadata server share: ids, names, and the errors
// that a caller can act on. It depends on the standard library only; everything else depends on it.
//
// ARCHITECTURE.md says which package does what.
package metasrv
