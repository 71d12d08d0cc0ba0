package raftfsm

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// A record of the log carries, in raft.Log.Extensions, the version of the check (1) and the CRC32C of its index, term,
// type and data. It is added when the record is stored and taken off when it is read: other members never see it.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	checkVersion = 1
	checkBytes   = 1 + crc32.Size
)

// sealed returns copies of records with their checks.
func sealed(logs []*raft.Log) []*raft.Log {
	copies := make([]raft.Log, len(logs))
	checks := make([]byte, len(logs)*checkBytes)
	out := make([]*raft.Log, len(logs))
	for i, log := range logs {
		copies[i] = *log
		check := checks[i*checkBytes : (i+1)*checkBytes : (i+1)*checkBytes]
		check[0] = checkVersion
		binary.BigEndian.PutUint32(check[1:], recordSum(log))
		copies[i].Extensions = check
		out[i] = &copies[i]
	}
	return out
}

func recordSum(log *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], log.Index)
	binary.BigEndian.PutUint64(head[8:], log.Term)
	head[16] = byte(log.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, log.Data)
}

// unseal checks the record that was read for an index, and takes its check off. Records without one are from before
// there were checks.
func unseal(log *raft.Log, index uint64, mustHave bool) error {
	check := log.Extensions
	log.Extensions = nil
	switch {
	case log.Index != index:
		return fmt.Errorf("the record of entry %d is of entry %d", index, log.Index)
	case len(check) == 0 && !mustHave:
		return nil
	case len(check) != checkBytes || check[0] != checkVersion:
		return fmt.Errorf("the record of entry %d has no checksum", index)
	}
	if want, got := binary.BigEndian.Uint32(check[1:]), recordSum(log); got != want {
		return fmt.Errorf("entry %d has checksum %08x, want %08x", index, got, want)
	}
	return nil
}

// sealedValue returns a value of raft's own (its term, its vote) with a check of key and value behind it.
func sealedValue(key, value []byte) []byte {
	out := append(make([]byte, 0, len(value)+crc32.Size), value...)
	return binary.BigEndian.AppendUint32(out, valueSum(key, value))
}

func valueSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// unsealValue returns the value without its check; false if the check is wrong.
func unsealValue(key, stored []byte) ([]byte, bool) {
	n := len(stored) - crc32.Size
	if n < 0 {
		return nil, false
	}
	value := stored[:n:n]
	return value, binary.BigEndian.Uint32(stored[n:]) == valueSum(key, value)
}
