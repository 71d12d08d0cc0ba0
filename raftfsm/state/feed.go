package state

import "context"

// Change is one key's new value at a revision.
type Change struct {
	Key string
	// Value is nil where the key was deleted.
	Value []byte
	// Prev is the value before, nil where there was none.
	Prev []byte
}

// Revision holds the changes that one command made.
type Revision struct {
	Number  uint64
	Changes []Change
}

// Feed hands out the changes of the state, revision by revision.
type Feed interface {
	// Read returns the whole revisions from the given one on, at least one; it waits until there is one.
	// ErrCompacted: the revision is no longer remembered, or the state was replaced.
	Read(ctx context.Context, from uint64) ([]Revision, error)
}
