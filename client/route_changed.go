package client

// Changed returns a channel that is closed once the cache knows another route of r's table than r, or none: at once where
// it does already. Only Run, and fetches that others ask for, find out.
func (c *RouteCache) Changed(r *TableRoute) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[r.Name]
	if e == nil || e.route != r {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	if e.changed == nil {
		e.changed = make(chan struct{})
	}
	return e.changed
}

// change tells those who wait that the route of an entry is another one, or none, from now on. The caller holds mu.
func (e *entry) change() {
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}
