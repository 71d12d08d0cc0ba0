package e2e

import (
	"testing"

	"github.com/metasrv/metasrv/internal/links"
)

// newLinks puts a proxy before the raft port of each member.
func newLinks(t *testing.T, members []*member) *links.Links {
	l := links.New()
	t.Cleanup(l.Close)
	for _, m := range members {
		via, err := l.Listen(m.id, m.raft)
		if err != nil {
			t.Fatal(err)
		}
		m.via = via
	}
	return l
}
