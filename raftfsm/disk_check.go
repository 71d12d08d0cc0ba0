package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"syscall"
)

// bbolt takes its files for whole: a page that points outside the file, or is none, ends the process with a panic, at an
// open even in a goroutine of its own, and a bucket whose name was damaged is an empty one. So each file is checked
// before bbolt opens it: its meta pages, and that all pages which it reaches are inside the file, of a kind, in order and
// reached once. What values hold is not seen here; they have checksums of their own.

const (
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	boltMetaSize  = 64
	boltPageHead  = 16
	boltElement   = 16
	boltBucket    = 16
	boltMaxDepth  = 64
	boltLeafFlag  = 2
	boltNodeFlag  = 1
	boltFreeFlag  = 0x10
	boltNoFree    = 1<<64 - 1
	boltFirstTx   = 2 // the first transaction after bbolt has made the file
	boltIsBucket  = 1
	boltMinPage   = 1 << 10
	boltMaxPage   = 1 << 24
	boltMetaStart = boltPageHead
)

// checkBolt returns an error if a file can't have been left by bbolt. A file that is not there, or empty, is in order:
// bbolt makes it. buckets are those that must be in it once anything is.
func checkBolt(path string, buckets ...string) error {
	err := readMapped(path, func(data []byte) error {
		if unfinished(data) {
			return os.Remove(path)
		}
		if err := (&boltCheck{data: data}).run(buckets); err != nil {
			return damaged(path, "%v", err)
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// readMapped runs check on the bytes of a file, guarded, unless it is empty.
func readMapped(path string, check func(data []byte) error) error {
	file, err := os.Open(path) //nolint:gosec // a file of the data folder
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED) //nolint:gosec // a descriptor fits
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = syscall.Munmap(data) }()
	return guarded(path, func() error { return check(data) })
}

// unfinished reports whether a file is what a power cut left of one that bbolt was making: the four pages that it begins
// with, not all of them written. No transaction was in it.
func unfinished(data []byte) bool {
	size := uint64(os.Getpagesize()) //nolint:gosec // positive
	if n := uint64(len(data)); n%size != 0 || n > 4*size {
		return false
	}
	for _, at := range []uint64{0, size} {
		if at >= uint64(len(data)) {
			return true
		}
		m, err := metaAt(data, at)
		if err == nil && m.sequence >= boltFirstTx {
			return false
		}
		if err != nil && !allZero(data[at:at+size]) {
			return false
		}
		if err != nil {
			return true
		}
	}
	return false
}

// allZero compares each byte with the next: faster than a loop, for megabytes are looked at while raft waits.
func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// boltMeta is what a meta page says.
type boltMeta struct {
	pageSize                        uint64
	root, freelist, pages, sequence uint64
}

// boltCheck walks a file.
type boltCheck struct {
	data []byte
	boltMeta
	reached []uint64 // a bit a page
}

func (c *boltCheck) run(buckets []string) error {
	if err := c.findMeta(); err != nil {
		return err
	}
	if have := uint64(len(c.data)); have < c.pages*c.pageSize {
		return fmt.Errorf("it has %d bytes, but its pages take %d: its end is missing", have, c.pages*c.pageSize)
	}
	c.reached = make([]uint64, c.pages/64+1)
	if c.freelist != boltNoFree {
		_, flags, _, err := c.page(c.freelist)
		if err == nil && flags != boltFreeFlag {
			err = fmt.Errorf("it is of the kind %x", flags)
		}
		if err != nil {
			return fmt.Errorf("page %d is not the list of free pages: %w", c.freelist, err)
		}
	}
	var names []string
	if err := c.bucket(c.root, 0, &names); err != nil {
		return err
	}
	for _, name := range buckets {
		if c.sequence >= boltFirstTx && !slices.Contains(names, name) {
			return fmt.Errorf("its part %q is missing", name)
		}
	}
	return nil
}

// findMeta reads both meta pages. Each is written whole within one sector, so both are whole at every moment: with only
// one of them bbolt would go back to the transaction before, and lose the last one silently.
func (c *boltCheck) findMeta() error {
	for size := uint64(boltMinPage); size <= boltMaxPage && 2*size <= uint64(len(c.data)); size *= 2 {
		first, err0 := metaAt(c.data, 0)
		second, err1 := metaAt(c.data, size)
		if err0 == nil && first.pageSize != size || err1 == nil && second.pageSize != size || err0 != nil && err1 != nil {
			continue
		}
		if err := errors.Join(err0, err1); err != nil {
			return fmt.Errorf("one of its two meta pages is not readable (%w), and it may be the last one", err)
		}
		c.boltMeta = first
		if second.sequence > first.sequence {
			c.boltMeta = second
		}
		return nil
	}
	return errors.New("it has no readable meta page")
}

func metaAt(data []byte, page uint64) (boltMeta, error) {
	m := data[page+boltMetaStart:][:boltMetaSize]
	u32 := func(at int) uint64 { return uint64(binary.NativeEndian.Uint32(m[at:])) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(m[at:]) }
	sum := fnv.New64a()
	_, _ = sum.Write(m[:56])
	switch {
	case u32(0) != boltMagic:
		return boltMeta{}, fmt.Errorf("page at byte %d is none of bbolt", page)
	case u32(4) != boltVersion:
		return boltMeta{}, fmt.Errorf("page at byte %d has version %d", page, u32(4))
	case u64(56) != sum.Sum64():
		return boltMeta{}, fmt.Errorf("page at byte %d has a wrong checksum", page)
	}
	return boltMeta{pageSize: u32(8), root: u64(16), freelist: u64(32), pages: u64(40), sequence: u64(48)}, nil
}

// page returns the bytes of a page with its overflow, its kind and the number of its elements. Each may be reached once.
func (c *boltCheck) page(id uint64) (data []byte, flags, count int, err error) {
	if id < 2 || id >= c.pages {
		return nil, 0, 0, fmt.Errorf("page %d is outside the file of %d pages", id, c.pages)
	}
	data = c.data[id*c.pageSize:]
	overflow := uint64(binary.NativeEndian.Uint32(data[12:]))
	if at := binary.NativeEndian.Uint64(data); at != id {
		return nil, 0, 0, fmt.Errorf("page %d says that it is page %d", id, at)
	}
	if id+overflow >= c.pages {
		return nil, 0, 0, fmt.Errorf("page %d goes on beyond the end", id)
	}
	for p := id; p <= id+overflow; p++ {
		if c.reached[p/64]&(1<<(p%64)) != 0 {
			return nil, 0, 0, fmt.Errorf("page %d is used twice", p)
		}
		c.reached[p/64] |= 1 << (p % 64)
	}
	flags, count = int(binary.NativeEndian.Uint16(data[8:])), int(binary.NativeEndian.Uint16(data[10:]))
	return data[:(overflow+1)*c.pageSize], flags, count, nil
}

// bucket checks a bucket from its root page on; names gets those of the buckets in it.
func (c *boltCheck) bucket(root uint64, depth int, names *[]string) error {
	return c.tree(root, nil, nil, depth, names)
}

// tree checks a page and those below it. Its keys are at least low and less than high, where they are given.
func (c *boltCheck) tree(id uint64, low, high []byte, depth int, names *[]string) error {
	if depth > boltMaxDepth {
		return fmt.Errorf("page %d is %d pages below the root", id, depth)
	}
	data, flags, count, err := c.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case boltLeafFlag:
		return c.leaf(id, data, count, low, high, depth, names)
	case boltNodeFlag:
		return c.node(id, data, count, low, high, depth, names)
	}
	return fmt.Errorf("page %d is of the unknown kind %x", id, flags)
}

func (c *boltCheck) node(id uint64, data []byte, count int, low, high []byte, depth int, names *[]string) error {
	if count == 0 || boltPageHead+count*boltElement > len(data) {
		return fmt.Errorf("page %d has %d elements", id, count)
	}
	keys, children := make([][]byte, count), make([]uint64, count)
	for i := range count {
		at := boltPageHead + i*boltElement
		e := data[at:]
		key, err := part(data, at, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]))
		if err == nil {
			err = checkKey(key, low, high, i == 0)
		}
		if err != nil {
			return fmt.Errorf("element %d of page %d: %w", i, id, err)
		}
		low, keys[i], children[i] = key, key, binary.NativeEndian.Uint64(e[8:])
	}
	for i, child := range children {
		end := high
		if i+1 < count {
			end = keys[i+1]
		}
		if err := c.tree(child, keys[i], end, depth+1, names); err != nil {
			return err
		}
	}
	return nil
}

func (c *boltCheck) leaf(id uint64, data []byte, count int, low, high []byte, depth int, names *[]string) error {
	if boltPageHead+count*boltElement > len(data) {
		return fmt.Errorf("page %d has %d elements", id, count)
	}
	for i := range count {
		at := boltPageHead + i*boltElement
		e := data[at:]
		flags, pos := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:])
		keySize, valueSize := binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		key, err := part(data, at, pos, keySize)
		if err == nil {
			err = checkKey(key, low, high, i == 0)
		}
		var value []byte
		if err == nil {
			value, err = part(data, at+int(pos)+int(keySize), 0, valueSize)
		}
		if err == nil {
			err = c.element(flags, key, value, depth, names)
		}
		if err != nil {
			return fmt.Errorf("element %d of page %d: %w", i, id, err)
		}
		low = key
	}
	return nil
}

// element checks what a leaf has under a key: a value, or a bucket with pages of its own or within the value.
func (c *boltCheck) element(flags uint32, key, value []byte, depth int, names *[]string) error {
	switch {
	case flags == 0:
		return nil
	case flags != boltIsBucket:
		return fmt.Errorf("it is of the unknown kind %x", flags)
	case len(value) < boltBucket:
		return fmt.Errorf("it is a bucket of %d bytes", len(value))
	case names != nil:
		*names = append(*names, string(key))
	}
	root := binary.NativeEndian.Uint64(value)
	if root != 0 {
		return c.bucket(root, depth+1, nil)
	}
	inner := value[boltBucket:]
	if len(inner) < boltPageHead || binary.NativeEndian.Uint64(inner) != 0 || binary.NativeEndian.Uint16(inner[8:]) != boltLeafFlag {
		return errors.New("it is a bucket without a page")
	}
	return c.leaf(0, inner, int(binary.NativeEndian.Uint16(inner[10:])), nil, nil, depth+1, nil)
}

// part returns the bytes of a page from a place on.
func part(data []byte, from int, pos, size uint32) ([]byte, error) {
	start := uint64(from) + uint64(pos) //nolint:gosec // a place in a page
	end := start + uint64(size)
	if end > uint64(len(data)) {
		return nil, fmt.Errorf("it ends at byte %d of a page of %d", end, len(data))
	}
	return data[start:end], nil
}

// checkKey checks the key of an element, where low is that of the element before it, unless it is the first of its page.
func checkKey(key, low, high []byte, first bool) error {
	switch {
	case low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0:
		return errors.New("its key is out of order")
	case len(key) == 0, !first && bytes.Equal(key, low):
		return errors.New("its key is empty or there twice")
	}
	return nil
}
