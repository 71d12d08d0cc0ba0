package datanode

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// TestParts: a copy is sent whole, and where it can't be read on at the border of a part, that is no end of it.
func TestParts(t *testing.T) {
	broken := errors.New("the disk is broken")
	for name, c := range map[string]struct {
		bytes int
		end   error
	}{
		"nothing":                 {0, nil},
		"one part":                {copyBytes, nil},
		"some parts":              {2*copyBytes + 1, nil},
		"broken at the start":     {0, broken},
		"broken behind a part":    {copyBytes, broken},
		"broken within the third": {2*copyBytes + 1, broken},
	} {
		data := bytes.Repeat([]byte("copy"), c.bytes/4+1)[:c.bytes]
		var file io.Reader = bytes.NewReader(data)
		if c.end != nil {
			file = io.MultiReader(file, iotest.ErrReader(c.end))
		}
		var got []byte
		err := eachPart(file, func(part []byte) error {
			got = append(got, part...)
			return nil
		})
		if !errors.Is(err, c.end) || c.end == nil && !bytes.Equal(got, data) {
			t.Errorf("%s: %d of %d bytes, %v, want %v", name, len(got), len(data), err, c.end)
		}
	}
	full := errors.New("the other disk is full")
	if err := eachPart(bytes.NewReader(make([]byte, copyBytes)), func([]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v, want %v", err, full)
	}
}
