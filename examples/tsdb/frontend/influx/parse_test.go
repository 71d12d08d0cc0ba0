package influx

import (
	"bytes"
	"testing"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"
)

// FuzzParse: what is parsed line by line is what the decoder of the library reads from the whole body.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"m v=1", "# x\n\nm,a=b v=1,w=\"a\nb\" 5\n", `m\ n,a\,b=c\=d v="\"x" 1`, "m v=1i\r\nm v=t 3", "m,a=\"b v=1 1\nn v=2",
		"m v=\"open", "m,a=b\\\nc v=1", "m v=1 1 x", " m v=1", "#\"\nm v=1",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.ContainsAny(body, "\t\r#") {
			return // blank lines and comments may hold what the decoder refuses in them
		}
		points, err := parse(body, lineprotocol.Nanosecond, time.Unix(0, 7))
		if err != nil {
			return // refused as a whole
		}
		d := lineprotocol.NewDecoderWithBytes(append([]byte{}, body...))
		n := 0
		for ; d.Next(); n++ {
			m, err := d.Measurement()
			if err != nil {
				t.Fatalf("point %d of %q is accepted: %v", n, body, err)
			}
			if n >= len(points) || points[n].measurement != string(m) {
				t.Fatalf("%q: point %d is of %q", body, n, m)
			}
			at, err := d.Time(lineprotocol.Nanosecond, time.Unix(0, 7))
			if err != nil || !at.Equal(points[n].time) {
				t.Fatalf("%q: point %d at %s, not %s: %v", body, n, points[n].time, at, err)
			}
		}
		if n != len(points) {
			t.Fatalf("%q: %d points, the decoder reads %d", body, len(points), n)
		}
	})
}
