// Package partition cuts tables into partitions: it checks a partition rule against a table's schema, finds the
// partition of a row, splits batches and prunes partitions by conditions. It is pure, and metasrv and its clients
// use the same code, so they can't disagree about where a row belongs. It knows nothing of regions and nodes.
//
// A table without a rule has one partition, 0.
//
// # Values
//
// Values are compared by their mathematical meaning: the integer 9007199254740993 is above the float
// 9007199254740992, whatever types carry them. Strings and bytes are compared byte by byte, false is below true,
// and NULL is below everything. NaN has no place in the order and is refused. A number is never compared with a
// timestamp, for it has no unit. A value of a row must be one that its column can hold: 1.5 in a column of
// integers is an error, not 1.
//
// # Range rules
//
// Partition i holds the rows from bound i-1, inclusive, to bound i, exclusive. Bounds are compared column after
// column. Every bound is above the one before it, and the last one is MAXVALUE in every column, so each row
// belongs to exactly one partition. NULL belongs to the first partition that its other columns allow.
//
// # Hash rules
//
// A row belongs to partition
//
//	XXH64(seed 0, encoding of the hash columns' values in the rule's order) mod partitions
//
// where XXH64 is the 64-bit xxHash (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), taken as an
// unsigned number, and each value is encoded by the type of its column, all numbers in big endian:
//
//	NULL       00
//	BOOL       01, then 00 or 01
//	INT64      02, then 8 bytes, two's complement
//	UINT64     03, then 8 bytes
//	FLOAT64    04, then 8 bytes of IEEE 754; -0 is encoded as +0
//	STRING     05, then 8 bytes of length in bytes, then UTF-8
//	BYTES      06, then 8 bytes of length, then the bytes
//	TIMESTAMP  07, then 8 bytes, two's complement, nanoseconds since 1970-01-01 UTC
//
// This never changes: rows are where it put them. testdata/hash.json has vectors to check another
// implementation with.
package partition
