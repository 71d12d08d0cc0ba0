package server

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// resident returns how many KiB of a mapped file count as this process's.
func resident(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	kib, here := 0, false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		var n int
		switch {
		case strings.Contains(strings.Fields(line)[0], "-"): // addresses: another mapping begins
			here = strings.HasSuffix(line, path)
		case here:
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil {
				kib += n
			}
		}
	}
	return kib
}

func TestMappedFilesAreGivenBack(t *testing.T) {
	const size = 1 << 20
	dir := filepath.Join(t.TempDir(), "with space")
	path := filepath.Join(dir, "state.db")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(mapped) }()
	sum := 0
	for i := 0; i < size; i += 4096 {
		sum += int(mapped[i])
	}
	if n := resident(t, path); n < size>>10 {
		t.Fatalf("%d KiB are resident after reading all %d (%d)", n, size>>10, sum)
	}
	releaseMapped(dir + "/other")
	if n := resident(t, path); n < size>>10 {
		t.Errorf("%d KiB are resident after another folder was given back", n)
	}
	releaseMapped(dir)
	if n := resident(t, path); n != 0 {
		t.Errorf("%d KiB are still resident", n)
	}
}
