package raftfsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The names in a data folder. Those of the log depend on how it is kept.
const (
	imageName   = "state.db"
	installName = "install.db" // an image that is received, see snapshotStore
	boltLogName = "raft.db"
	walName     = "wal"
	// member.json: memberFileName
)

func imagePath(dir string) string   { return filepath.Join(dir, imageName) }
func boltLogPath(dir string) string { return filepath.Join(dir, boltLogName) }
func walPath(dir string) string     { return filepath.Join(dir, walName) }

// memberNames are all of them, which a recovery replaces.
var memberNames = []string{imageName, boltLogName, walName, memberFileName, installName}

// checkKinds returns an error if something in a data folder is not what its name is for, such as a folder: container runtimes
// make one where a file that doesn't exist is mounted. Opening it would fail with the system's words, which say nothing of
// that.
func checkKinds(dir string) error {
	for _, name := range memberNames {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		want, is := "a file", info.Mode().IsRegular()
		if name == walName {
			want, is = "a folder", info.IsDir()
		}
		if !is {
			return fmt.Errorf("%s is %s, but must be %s, which the member makes itself. Something else was put or mounted there: take it away. "+
				"If the member has run before, put its own %s back", path, kindOf(info.Mode()), want, name)
		}
	}
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode.IsRegular():
		return "a file"
	}
	return "no file on a disk (" + mode.Type().String() + ")"
}
