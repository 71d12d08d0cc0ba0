package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/metasrv/metasrv/server"
)

// registerDisk adds the flags on the disk that both commands have.
func registerDisk(flags *pflag.FlagSet, cfg *server.Config) {
	flags.Var((*byteSize)(&cfg.MinFreeDisk), "min-free-disk",
		"`SIZE` free space on the disk of --data-dir below which writes are refused, such as 256MiB or 0; reads go on")
}

// byteSize is a flag that holds a number of bytes.
type byteSize uint64

// units of a size, the largest first.
var units = []struct {
	name  string
	bytes uint64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// Set reads a size: a number with a unit, or of bytes.
func (b *byteSize) Set(s string) error {
	number, factor := strings.TrimSpace(s), uint64(1)
	for _, u := range units {
		if n, found := strings.CutSuffix(number, u.name); found {
			number, factor = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > 1<<62/factor {
		return fmt.Errorf("%q is no size: write a number of bytes, or one with KiB, MiB, GiB or TiB, for example 256MiB", s)
	}
	*b = byteSize(n * factor)
	return nil
}

// String returns the size in the largest unit that it is a whole number of.
func (b *byteSize) String() string {
	for _, u := range units {
		if n := uint64(*b); n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatUint(n/u.bytes, 10) + u.name
		}
	}
	return "0"
}

// Type names the kind of the flag.
func (*byteSize) Type() string { return "size" }
