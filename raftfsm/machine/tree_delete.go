package machine

// fewKeys is the number of keys below which a page is joined with its neighbour.
const fewKeys = pageKeys / 4

// Delete removes a key and returns its value.
func (t *tree) Delete(key string) (prev []byte, existed bool) {
	if _, existed = t.Get(key); !existed {
		return nil, false // and no page is copied
	}
	prev = t.delete(&t.root, key)
	t.count--
	switch {
	case t.root.n > 0:
	case t.root.children != nil:
		t.root = t.root.children[0]
	default:
		t.root = nil
	}
	return prev, true
}

// delete removes a key that is there.
func (t *tree) delete(at **page, key string) (prev []byte) {
	p := t.own(at)
	if p.children == nil {
		i, _ := p.search(key)
		prev = p.values[i]
		p.remove(i)
		return prev
	}
	i := p.route(key)
	prev = t.delete(&p.children[i], key)
	if p.children[i].n < fewKeys && p.n > 0 {
		t.join(p, max(i-1, 0))
	}
	return prev
}

// remove takes out a key with its value, or with the child behind it.
func (p *page) remove(i int) {
	n := int(p.n)
	copy(p.heads[i:], p.heads[i+1:n])
	copy(p.keys[i:], p.keys[i+1:n])
	p.keys[n-1] = ""
	if p.children == nil {
		copy(p.values[i:], p.values[i+1:n])
		p.values[n-1] = nil
	} else {
		copy(p.children[i+1:], p.children[i+2:n+1])
		p.children[n] = nil
	}
	p.n--
}

// join makes one page of the children around a separator, or two of about the same size where it would be too large.
func (t *tree) join(p *page, i int) {
	left, right := t.own(&p.children[i]), t.own(&p.children[i+1])
	var keys [2*pageKeys + 1]string
	var values [2*pageKeys + 1][]byte
	var children [2*pageKeys + 2]*page
	n := copy(keys[:], left.keys[:left.n])
	copy(values[:], left.values[:left.n])
	if left.children != nil {
		copy(children[:], left.children[:left.n+1])
		keys[n] = p.keys[i] // stood between the two
		n++
		copy(children[n:], right.children[:right.n+1])
	}
	copy(values[n:], right.values[:right.n])
	n += copy(keys[n:], right.keys[:right.n])
	if n <= pageKeys {
		left.fill(keys[:n], values[:n], children[:n+1])
		p.remove(i)
		return
	}
	half := n / 2
	left.fill(keys[:half], values[:half], children[:half+1])
	p.keys[i] = keys[half]
	from := half
	if left.children != nil {
		from++
	}
	right.fill(keys[from:n], values[from:n], children[from:n+1])
	p.refresh()
}

// fill gives a page other content.
func (p *page) fill(keys []string, values [][]byte, children []*page) {
	p.n = int32(copy(p.keys[:], keys)) //nolint:gosec // at most pageKeys
	copy(p.values[:], values)
	if p.children != nil {
		clear(p.children[copy(p.children[:], children):])
	}
	p.truncate(int(p.n))
}
