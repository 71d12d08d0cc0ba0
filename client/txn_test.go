package client

import "testing"

func TestPrefix(t *testing.T) {
	for _, tt := range []struct{ prefix, key, end string }{
		{"a", "a", "b"},
		{"a/", "a/", "a0"},
		{"a\xff", "a\xff", "b"},
		{"a\xfe\xff\xff", "a\xfe\xff\xff", "a\xff"},
		{"\xff\xff", "\xff\xff", "\x00"},
		{"", "\x00", "\x00"},
	} {
		if key, end := Prefix(tt.prefix); string(key) != tt.key || string(end) != tt.end {
			t.Errorf("%q: %q to %q, want %q to %q", tt.prefix, key, end, tt.key, tt.end)
		}
	}
}
