package raftfsm

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
)

// openStores opens log and image and checks that they belong together.
func (n *Node) openStores() error {
	if err := checkKinds(n.cfg.DataDir); err != nil {
		return err
	}
	if err := n.openFile(); err != nil {
		return err
	}
	store, err := n.openLog(imagePath(n.cfg.DataDir))
	if err != nil {
		return err
	}
	if n.cfg.wrapLog != nil {
		store.db = n.cfg.wrapLog(store.db)
	}
	store.watch, store.disk, store.slow, store.stop = n.watch, n.disk, n.cfg.Disk, n.ctx.Done()
	n.store = store
	img, err := openImage(imagePath(n.cfg.DataDir))
	if err != nil {
		return err
	}
	from, err := img.load()
	if err != nil {
		return errors.Join(err, img.close())
	}
	if err := n.checkVersion(from.view.Position().Version); err != nil {
		return errors.Join(err, img.close())
	}
	if err := reconcile(store, from.view.Position()); err != nil {
		return errors.Join(err, img.close())
	}
	// The files are there for good before the member promises anything.
	if err := errors.Join(syncDir(n.cfg.DataDir), syncDir(filepath.Dir(n.cfg.DataDir))); err != nil {
		return errors.Join(err, img.close())
	}
	n.fsm = newFSM(from, n.cfg.Appliers, store, n.fail)
	n.fsm.machine.Know(n.cfg.CommandVersion)
	n.flusher = newFlusher(n.fsm, img, n.cfg.Timing, n.fail)
	n.flusher.watch, n.flusher.disk, n.flusher.slow, n.flusher.noted = n.watch, n.disk, n.cfg.Disk, store.note
	store.pins = newPins(n.cfg.Log.Bytes, n.fsm.entryBytes.Load, n.disk)
	n.fsm.checkReceived, n.fsm.install = n.snapshots().checkReceived, n.snapshots().install
	return nil
}

func (n *Node) openLog(imagePath string) (*logStore, error) {
	asked := cmp.Or(n.cfg.LogStore, LogStoreBolt)
	if err := checkLogStore(n.cfg.DataDir, asked); err != nil {
		return nil, err
	}
	if asked == LogStoreWAL {
		options := n.cfg.wal
		options.segment, options.logger = cmp.Or(options.segment, walSegment), newRaftLogger(n.log)
		return openWAL(walPath(n.cfg.DataDir), options, n.fail)
	}
	path := boltLogPath(n.cfg.DataDir)
	if err := checkLost(path, imagePath); err != nil {
		return nil, err
	}
	return openLog(path, n.fail)
}

// checkLost returns an error if the log is there but empty while there is an image: bbolt makes the log first, so it was
// not always so.
func checkLost(logPath, imagePath string) error {
	log, err := os.Stat(logPath)
	if err != nil || log.Size() > 0 {
		return nil //nolint:nilerr // a log that is not there is found out by what the image has
	}
	if _, err := os.Stat(imagePath); err != nil {
		return nil //nolint:nilerr // the member ended while it made its files
	}
	return damaged(logPath, "it is empty")
}

// openFile reads what the member remembers of its way into the cluster, and checks whether it may go on.
func (n *Node) openFile() error {
	_, hadLog, err := logOf(n.cfg.DataDir)
	if err != nil {
		return err
	}
	if n.file, err = openMemberFile(n.cfg.DataDir); err != nil {
		return err
	}
	if n.file.Ended != "" {
		return errors.New(n.file.Ended)
	}
	return n.checkFounded(hadLog)
}

// logOf returns which kind of log a data folder has; false where it has none.
func logOf(dir string) (LogStore, bool, error) {
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		path := boltLogPath(dir)
		if kind == LogStoreWAL {
			path = walPath(dir)
		}
		if there, err := exists(path); there || err != nil {
			return kind, there, err
		}
	}
	return LogStoreBolt, false, nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
