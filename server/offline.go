package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/lock"
	"github.com/metasrv/metasrv/procedure"
	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// Restore makes the data folder of a member from a snapshot: a cluster of this member alone, in a new life. The folder
// must be absent or empty. It needs NodeID, DataDir and AdvertiseRaftAddr or RaftAddr of the configuration.
func Restore(cfg *Config, file string) (found raftfsm.Found, err error) {
	if err := cfg.validateOffline(); err != nil {
		return found, err
	}
	f, err := os.Open(file) //nolint:gosec // the operator chose the file
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	found, err = cfg.offline().Restore(f, "restored from "+filepath.Base(file))
	if err != nil {
		return found, fmt.Errorf("restore %s: %w", file, err)
	}
	return found, nil
}

// Recover makes a cluster of one out of a member whose cluster has lost its majority, in its own folder. confirm is
// asked before anything is changed; kept is the folder that has the files as they were.
func Recover(cfg *Config, confirm func(raftfsm.Found) error) (found raftfsm.Found, kept string, err error) {
	if err := cfg.validateOffline(); err != nil {
		return found, "", err
	}
	if _, err := os.Stat(cfg.DataDir); err != nil {
		return found, "", wrong("data-dir", "%v", err)
	}
	dir, err := openDataDir(cfg.DataDir, cfg.NodeID)
	if err != nil {
		return found, "", err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	found, kept, err = cfg.offline().Recover("recovered from what member "+cfg.NodeID+" had", confirm)
	if err != nil {
		return found, kept, fmt.Errorf("recover member %s in %s: %w", cfg.NodeID, cfg.DataDir, err)
	}
	return found, kept, nil
}

func (c *Config) validateOffline() error {
	errs := []error{c.validateIdentity()}
	if host, err := splitAddr(c.advertisedRaft()); err != nil {
		errs = append(errs, wrong("raft-addr", "%q is not host:port", c.advertisedRaft()))
	} else if unspecified(host) {
		errs = append(errs, wrong("advertise-raft-addr", "%s can't be dialled; name the address at which other members will reach this one", c.advertisedRaft()))
	}
	return errors.Join(errs...)
}

func (c *Config) offline() raftfsm.Offline {
	return raftfsm.Offline{
		MemberID: c.NodeID, RaftAddr: c.advertisedRaft(), DataDir: c.DataDir, LogStore: c.LogStore, Appliers: Appliers(),
		Adopters: []func(state.Tx) error{catalog.Adopt, router.Adopt, heartbeat.Adopt, lock.Adopt, procedure.Adopt},
	}
}
