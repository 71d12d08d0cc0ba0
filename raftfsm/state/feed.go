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

// Size returns the bytes of a change's key and values.
func (c *Change) Size() int { return len(c.Key) + len(c.Value) + len(c.Prev) }

// Revision holds the changes that one command made.
type Revision struct {
	Number  uint64
	Changes []Change
}

// Feed hands out the changes of the state, revision by revision.
type Feed interface {
	// Read returns the whole revisions from the given one on, at least one; it waits until there is one. What it
	// returns must not be modified. View shows a state at or after what Read returns.
	// ErrCompacted: the revision is no longer remembered, or the state was replaced; it names the oldest one.
	Read(ctx context.Context, from uint64) ([]Revision, error)
	// Remembered returns the oldest revision that can be read, and the bytes of memory that are held for it and those
	// after it.
	Remembered() (oldest uint64, bytes int)
}
