package loadgen

import "testing"

func TestTemplate(t *testing.T) {
	keys := NewKeys("k/", 200)
	first := string(keys.Append(nil, 0))
	if first != "k/00000000" || string(keys.Append(nil, 107)) != "k/00000107" {
		t.Errorf("keys %q and %q", first, keys.Append(nil, 107))
	}
	template, err := NewTemplate([]byte("a "+first+" and "+first), []byte(first))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := string(template.With(keys.Append(nil, 42))); got != "a k/00000042 and k/00000042" {
			t.Errorf("request %q", got)
		}
	}
	if _, err := NewTemplate([]byte("nothing"), []byte(first)); err == nil {
		t.Error("a request without the part was taken")
	}
	if value := RandomValue(100); len(value) != 100 {
		t.Errorf("%d bytes", len(value))
	}
}
