package main

import "testing"

func TestByteSize(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "256MiB": "256MiB", "1024": "1KiB", "1536 KiB": "1536KiB", "2GiB": "2GiB", "7B": "7B", "1TiB": "1TiB",
	} {
		var b byteSize
		if err := b.Set(in); err != nil || b.String() != want {
			t.Errorf("%q is %s, %v; want %s", in, b.String(), err, want)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "1.5GiB", "10MB", "9999999999999TiB"} {
		if err := new(byteSize).Set(in); err == nil {
			t.Errorf("%q was taken for a size", in)
		}
	}
}
