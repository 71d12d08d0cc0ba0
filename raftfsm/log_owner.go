package raftfsm

import (
	"errors"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/metasrv/metasrv"
)

// keyOwner holds the number of the folder that the log belongs to, as in member.json.
var keyOwner = []byte("metasrv.Owner")

// claimLog returns an error if the log is that of another folder: it has the vote of another member, or of this one in
// another life. A log without an owner, which is new or from before there were any, gets this one.
func (n *Node) claimLog() error {
	owner, err := n.store.GetUint64(keyOwner)
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		if err := n.store.Set(keyOwner, uint64Bytes(n.file.Nonce)); err != nil && !errors.Is(err, metasrv.ErrDiskFull) { // else at a later start
			return err
		}
		return nil
	case err != nil:
		return err
	case owner == n.file.Nonce:
		return nil
	case len(n.file.Founders) == 0 && n.file.ClusterID == 0: // member.json was lost
		return n.editFile(func(f *memberFile) { f.Nonce = owner })
	}
	return damaged(n.store.path, "it is not the log of this folder, but of another member or of an earlier folder of this one: "+
		"with it this member would forget what it has promised. Put back the file that was here, if it is still there")
}
