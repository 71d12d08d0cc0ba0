package machine

import "strings"

// Set gives a key a value and returns the one that it had.
func (t *tree) Set(key string, value []byte) (prev []byte, existed bool) {
	if t.root == nil {
		t.root = &page{owner: t.owner}
	}
	prev, existed, split := t.set(&t.root, key, value)
	if split != nil {
		root := &page{owner: t.owner, children: &[pageKeys + 1]*page{t.root}}
		root.insert(0, split.key, nil, split.right)
		t.root = root
	}
	if !existed {
		t.count++
	}
	return prev, existed
}

// split is what a page that was full has given away.
type split struct {
	// key is the lowest that right has.
	key   string
	right *page
}

func (t *tree) set(at **page, key string, value []byte) (prev []byte, existed bool, _ *split) {
	p := t.own(at)
	if p.children == nil {
		i, found := p.search(key)
		if found {
			prev, p.values[i] = p.values[i], value
			return prev, true, nil
		}
		return nil, false, t.insert(p, i, key, value, nil)
	}
	i := p.route(key)
	prev, existed, below := t.set(&p.children[i], key, value)
	if below == nil {
		return prev, existed, nil
	}
	return prev, existed, t.insert(p, i, below.key, nil, below.right)
}

// own returns a page that only this tree has.
func (t *tree) own(at **page) *page {
	p := *at
	if p.owner == t.owner {
		return p
	}
	mine := *p
	mine.owner = t.owner
	if p.children != nil {
		children := *p.children
		mine.children = &children
	}
	*at = &mine
	return &mine
}

// insert puts a key at its place in a page, with its value or with the child behind it. A full page is split.
func (t *tree) insert(p *page, i int, key string, value []byte, child *page) *split {
	if p.n < pageKeys {
		p.insert(i, key, value, child)
		return nil
	}
	middle := pageKeys / 2
	if i == pageKeys {
		middle = pageKeys - 1 // what comes in the order of keys leaves full pages behind
	}
	s := t.split(p, middle)
	if i <= int(p.n) {
		p.insert(i, key, value, child)
	} else {
		s.right.insert(i-(pageKeys-int(s.right.n)), key, value, child)
	}
	return s
}

// split moves what is behind the middle of a full page to a new one.
func (t *tree) split(p *page, middle int) *split {
	right := &page{owner: t.owner}
	s := &split{key: p.keys[middle], right: right}
	from := middle
	if p.children != nil {
		// The separator in the middle goes up.
		from++
		right.children = new([pageKeys + 1]*page)
		copy(right.children[:], p.children[from:])
		clear(p.children[from:])
	}
	right.n = int32(copy(right.keys[:], p.keys[from:])) //nolint:gosec // at most pageKeys
	copy(right.values[:], p.values[from:])
	p.truncate(middle)
	right.refresh()
	return s
}

// truncate leaves a page its first keys.
func (p *page) truncate(n int) {
	clear(p.keys[n:])
	clear(p.values[n:])
	p.n = int32(n) //nolint:gosec // at most pageKeys
	p.refresh()
}

// insert puts a key into a page that has room.
func (p *page) insert(i int, key string, value []byte, child *page) {
	n := int(p.n)
	copy(p.heads[i+1:n+1], p.heads[i:n])
	copy(p.keys[i+1:n+1], p.keys[i:n])
	p.keys[i] = key
	if p.children == nil {
		copy(p.values[i+1:n+1], p.values[i:n])
		p.values[i] = value
	} else {
		copy(p.children[i+2:n+2], p.children[i+1:n+1])
		p.children[i+1] = child
	}
	p.n++
	// Another one than the new key has what all others have in common.
	if other := p.keys[min(n, max(0, 1-i))]; n == 0 || !strings.HasPrefix(key, other[:p.skip]) {
		p.refresh()
		return
	}
	p.heads[i] = headOf(key, int(p.skip))
}
