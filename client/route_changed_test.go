package client

import (
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestRouteCacheTellsOfChanges(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 1))
	c := s.cache(t)
	first := mustGet(t, c, "cpu")
	replaced := c.Changed(first)
	if isClosed(replaced) {
		t.Error("the route that the cache has is said to be replaced")
	}
	s.put(routeOf("cpu", 1024, 2))
	c.Invalidate(tableNamed("cpu"), 0)
	if isClosed(replaced) {
		t.Error("a route that is only suspected is said to be replaced")
	}
	second := mustGet(t, c, "cpu")
	if !isClosed(replaced) || !isClosed(c.Changed(first)) {
		t.Error("nobody was told of another route")
	}
	moved := c.Changed(second)
	c.moved(&metasrvpb.Peer{Id: 2, Addr: "elsewhere:1"}, second.Revision+1)
	if !isClosed(moved) {
		t.Error("nobody was told of another address")
	}
	third := mustGet(t, c, "cpu")
	dropped := c.Changed(third)
	c.remove(third.ID, third.Name, third.Revision+1)
	if !isClosed(dropped) {
		t.Error("nobody was told that the table is gone")
	}
}
