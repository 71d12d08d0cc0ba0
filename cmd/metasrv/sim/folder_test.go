package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// cleanerVar in the environment makes the test binary a cleaner of the folder that it names.
const cleanerVar = "METASRV_SIM_CLEANER"

// root is the folder of all schedules of this process.
var root string

// runInFolder makes root, runs, and removes it. A process beside this one does the latter also where this one is killed
// or ends by a panic, and says then which schedule was under way: memory would stay taken otherwise, and the seed unknown.
func runInFolder(run func() int) int {
	dir, err := os.MkdirTemp(fastDir(), "metasrv-sim-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	root = dir
	release, err := startCleaner(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err, os.RemoveAll(dir))
		return 1
	}
	defer release()
	code := run()
	note("")
	return code
}

// startCleaner starts the process that removes the folder when this one has ended, or calls release.
func startCleaner(dir string) (release func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cleaner := exec.Command(self)
	cleaner.Env = append(os.Environ(), cleanerVar+"="+dir)
	cleaner.Stderr = os.Stderr
	cleaner.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a signal to the group of this process is not for it
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cleaner.Stdin = r
	if err := errors.Join(cleaner.Start(), r.Close()); err != nil {
		return nil, err
	}
	return func() {
		_ = w.Close()
		_ = cleaner.Wait()
	}, nil
}

// clean waits until its parent has ended, then removes the folder.
func clean(dir string) int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
	if seed, err := os.ReadFile(underWay(dir)); err == nil && len(seed) > 0 {
		fmt.Fprintf(os.Stderr, "the process ended in the middle of the schedule of seed %s; repeat it: SEED=%s make linear\n", seed, seed)
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func underWay(dir string) string { return filepath.Join(dir, "seed") }

// note keeps the seed that is under way for the cleaner, "" for none.
func note(seed string) { _ = os.WriteFile(underWay(root), []byte(seed), 0o600) }

// fastDir is a folder in memory where there is one: the simulation has no power cuts.
func fastDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// copyFolder copies the files of a data folder.
func copyFolder(to, from string) error {
	if runtime.GOOS != "linux" {
		return os.CopyFS(to, os.DirFS(from))
	}
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		target := to + strings.TrimPrefix(path, from)
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		}
		return copySparse(target, path)
	})
}

// Linux finds by these what of a file was written.
const seekData, seekHole = 3, 4

// copySparse copies a file, but not its holes: a file of bbolt is 16 MB from the beginning, of which little is written.
func copySparse(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for at := int64(0); at < info.Size(); {
		data, err := in.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break // the rest is a hole
		}
		if err != nil {
			return err
		}
		if at, err = in.Seek(data, seekHole); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, at-data)); err != nil {
			return err
		}
	}
	return out.Truncate(info.Size())
}
