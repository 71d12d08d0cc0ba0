package machine

import "strings"

// tree is an ordered map whose copies cost nothing: they share pages, and who writes to a shared page copies it first. It
// is a B+tree. A page has, beside its keys, eight bytes of each, from where they begin to differ. Searches compare these:
// to compare keys means to fetch each from another place in memory, which is most of the time of a search.
type tree struct {
	root *page
	// owner names the tree in the pages that only it has.
	owner *owner
	count int
}

type owner struct{ _ byte }

// pageKeys is the number of keys of a full page, which just fits into one of Go's sizes of memory (1,792 bytes).
const pageKeys = 36

// page is a leaf, with keys and values, or has children: the i-th separator is the lowest key that the i+1st can have.
type page struct {
	owner *owner
	// children is nil in a leaf. It stands beside what a search looks at first.
	children *[pageKeys + 1]*page
	n        int32
	// skip is how many bytes all keys have in common, at least.
	skip int32
	// heads has, of each key, the eight bytes behind these as a number; zeros stand for what is missing.
	heads  [pageKeys]uint64
	keys   [pageKeys]string
	values [pageKeys][]byte
}

func newTree() *tree { return &tree{owner: new(owner)} }

// Len returns the number of keys.
func (t *tree) Len() int { return t.count }

// Copy returns a tree with the same pairs. Changes of one are not seen in the other.
func (t *tree) Copy() *tree {
	t.owner = new(owner)
	return &tree{root: t.root, owner: new(owner), count: t.count}
}

// Get returns the value of a key.
func (t *tree) Get(key string) ([]byte, bool) {
	p := t.root
	if p == nil {
		return nil, false
	}
	for p.children != nil {
		p = p.children[p.route(key)]
	}
	if i, found := p.search(key); found {
		return p.values[i], true
	}
	return nil, false
}

// Ascend calls yield with the pairs from a key on, in order, until it returns false.
func (t *tree) Ascend(from string, yield func(string, []byte) bool) {
	if t.root != nil {
		t.root.ascend(from, yield)
	}
}

func (p *page) ascend(from string, yield func(string, []byte) bool) bool {
	if p.children == nil {
		i, _ := p.search(from)
		for ; i < int(p.n); i++ {
			if !yield(p.keys[i], p.values[i]) {
				return false
			}
		}
		return true
	}
	for i := p.route(from); i <= int(p.n); i++ {
		if !p.children[i].ascend(from, yield) {
			return false
		}
		from = ""
	}
	return true
}

// route returns which child has a key.
func (p *page) route(key string) int {
	i, found := p.search(key)
	if found {
		i++
	}
	return i
}

// search returns where a key is, or the place of the first one behind it.
func (p *page) search(key string) (int, bool) {
	head := headOf(key, int(p.skip))
	i := p.firstHead(head)
	if i < int(p.n) && p.heads[i] == head && p.keys[i] == key {
		return i, true
	}
	if p.n == 0 {
		return 0, false
	}
	// What all keys begin with was not compared yet.
	if common := p.keys[0][:p.skip]; !strings.HasPrefix(key, common) {
		if key < common {
			return 0, false
		}
		return int(p.n), false
	}
	return p.among(i, head, key)
}

// firstHead returns the place of the first head that is not below the given one.
func (p *page) firstHead(head uint64) int {
	low, high := 0, int(p.n)
	for low < high {
		middle := (low + high) / 2
		if p.heads[middle] < head {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// among searches a key among those with its head, of which low is the first.
func (p *page) among(low int, head uint64, key string) (int, bool) {
	high := low
	for high < int(p.n) && p.heads[high] == head {
		high++
	}
	for low < high {
		middle := (low + high) / 2
		switch order := strings.Compare(p.keys[middle], key); {
		case order == 0:
			return middle, true
		case order < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, false
}

// headOf returns the eight bytes of a key behind the first skip ones as a number.
func headOf(key string, skip int) uint64 {
	rest := len(key) - skip
	switch {
	case rest >= 8:
		return bigEndian(key[skip:])
	case rest <= 0:
		return 0
	case len(key) >= 8: // the last eight bytes, and those out that are not of the rest
		return bigEndian(key[len(key)-8:]) << (8 * (8 - rest))
	}
	head := uint64(0)
	for i := range rest {
		head |= uint64(key[skip+i]) << (8 * (7 - i))
	}
	return head
}

func bigEndian(s string) uint64 {
	_ = s[7]
	return uint64(s[0])<<56 | uint64(s[1])<<48 | uint64(s[2])<<40 | uint64(s[3])<<32 |
		uint64(s[4])<<24 | uint64(s[5])<<16 | uint64(s[6])<<8 | uint64(s[7])
}

// refresh finds out anew what the keys have in common.
func (p *page) refresh() {
	p.skip = 0
	if p.n > 0 {
		p.skip = int32(common(p.keys[0], p.keys[p.n-1])) //nolint:gosec // keys are short
	}
	for i := range p.n {
		p.heads[i] = headOf(p.keys[i], int(p.skip))
	}
}

// common returns how many bytes two keys both begin with.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
