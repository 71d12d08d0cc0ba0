package server

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// releaseMapped gives back the memory in which files of a folder are mapped. It stays in the page cache, so what is
// read again is found there, but it no longer counts as the member's: log and image are read as a whole at a start, and
// only here and there after that. It does nothing where that can't be done. The caller keeps log and image mapped: what
// else came to stand at their addresses meanwhile would be lost.
func releaseMapped(dir string) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if from, to, ok := mappingIn(lines.Bytes(), dir); ok {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED)
		}
	}
}

// mappingIn returns the addresses of a line of /proc/self/maps, if it is a shared, readable mapping of the image or the
// log in a folder: one that nothing is written through, so that nothing can be lost.
func mappingIn(line []byte, dir string) (from, to uintptr, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) < 6 || string(fields[1]) != "r--s" {
		return 0, 0, false
	}
	path := line[bytes.Index(line, fields[5]):] // it may have spaces
	if string(path) != dir+"/state.db" && string(path) != dir+"/raft.db" {
		return 0, 0, false // another one, such as that of a snapshot that arrives, may be unmapped at any time
	}
	low, high, _ := bytes.Cut(fields[0], []byte("-"))
	a, errA := strconv.ParseUint(string(low), 16, 64)
	b, errB := strconv.ParseUint(string(high), 16, 64)
	return uintptr(a), uintptr(b), errA == nil && errB == nil && a < b
}
