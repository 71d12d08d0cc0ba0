package frontend_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestLineProtocol writes into tables that SQL created and into new ones.
func TestLineProtocol(t *testing.T) {
	s := start(t, 2)
	s.exec(createMetrics)
	for _, c := range []struct {
		query, body string
		status      int
		says        string
	}{
		{"?db=public", "metrics,host=alpha cpu=1.5,n=3i,up=true,note=\"a \\\"b\\\"\" 1704067200000000001\n" +
			"metrics,host=zulu cpu=2 1704067200000000002\n", 204, ""},
		{"?precision=s", "# comment\n\nmetrics,host=mike cpu=3 1704067201", 204, ""},
		{"?precision=ms", "metrics,host=mike cpu=4 1704067202000", 204, ""},
		{"?precision=us", "metrics,host=mike cpu=5 1704067203000000", 204, ""},
		// Distinct nanoseconds of one microsecond are distinct rows.
		{"?db=public", "metrics,host=nano n=1i 1704067204000000001\nmetrics,host=nano n=2i 1704067204000000999", 204, ""},
		// Points of one row in one request become one row.
		{"?db=public", "metrics,host=one n=1i 1704067205000000000\nmetrics,host=one cpu=2 1704067205000000000", 204, ""},
		{"?db=public", "cpu,host=a,zone=z usage=1.5,count=2i,big=18446744073709551615u,ok=t,msg=\"two\nlines\" 5\ncpu,host=b usage=2 6", 204, ""},

		{"?db=nothing", "m v=1 1", 404, "database not found"},
		{"?precision=h", "m v=1 1", 400, "precision"},
		{"?db=public", "", 400, "no points"},
		{"?db=public", "metrics,host=x cpu=1 1\nmetrics,host=x cpu 2", 400, `"line":2`},
		{"?db=public", "cpu,host=a msg=\"two\nlines\" 7\ncpu,host=a usage=\"x\" 8", 400, `"line":3`},
		{"?db=public", "metrics,host=x cpu=1 1704067200000000000\nmetrics,host=x new=1 1704067200000000000", 400, `"line":2`},
		{"?db=public", "metrics,host=x new=1 1704067200000000000", 400, `no column \"new\"`},
		{"?db=public", "metrics,host=x n=1.5 1704067200000000000", 400, "bigint"},
		{"?db=public", "metrics,host=x n=9223372036854775808u 1704067200000000000", 400, "out of the range"},
		{"?db=public", "metrics,host=x up=1i 1704067200000000000", 400, "tinyint(1)"},
		{"?db=public", "metrics,host=x note=\"" + strings.Repeat("x", 21) + "\" 1704067200000000000", 400, "too large"},
		{"?db=public", "metrics,host=x cpu=9007199254740993i 1704067200000000000", 400, "lose digits"},
		{"?db=public", "metrics,host=x cpu=1 -5", 400, "outside"},
		{"?db=public", "metrics,host=x ts=1i 1704067200000000000", 400, "time of points"},
		{"?db=public", "metrics,host=x,host=y cpu=1 1704067200000000000", 400, "twice"},
		{"?db=public", "new,a=b a=1 5", 400, "twice"},
		{"?db=public", "new,a=b v=1 5\nnew v=1i 6", 400, `"line":2`},
		{"?db=public", "new ts=1 5", 400, `\"ts\"`},
		{"?db=public", "a/b v=1 5", 400, "'/'"},
	} {
		status, text := s.post(c.query, c.body)
		if status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %q:\n%d %s, want %d and %s", c.query, c.body, status, text, c.status, c.says)
		}
	}
	for _, c := range []struct{ query, want string }{
		{"SELECT ts, host, cpu, n, up, note FROM metrics WHERE host IN ('alpha', 'zulu', 'mike', 'one') ORDER BY ts, host",
			`2024-01-01 00:00:00|alpha|1.5|3|1|a "b"` + "\n2024-01-01 00:00:00|zulu|2|NULL|NULL|NULL\n" +
				"2024-01-01 00:00:01|mike|3|NULL|NULL|NULL\n2024-01-01 00:00:02|mike|4|NULL|NULL|NULL\n" +
				"2024-01-01 00:00:03|mike|5|NULL|NULL|NULL\n2024-01-01 00:00:05|one|2|1|NULL|NULL"},
		{"SELECT count(*), sum(n) FROM metrics WHERE ts = '2024-01-01 00:00:04'", "2|3"},
		{"SELECT * FROM cpu ORDER BY ts", "1970-01-01 00:00:00|a|z|18446744073709551615|2|two\nlines|1|1.5\n" +
			"1970-01-01 00:00:00|b||NULL|NULL|NULL|NULL|2"},
		{"SHOW TABLES", "cpu\nmetrics"},
	} {
		if got := s.query(c.query); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.query, got, c.want)
		}
	}
	// An INSERT … SELECT can't tell rows apart whose times differ by nanoseconds: it says so.
	s.exec("CREATE TABLE copied (ts DATETIME(6), host VARCHAR(64), n BIGINT, PRIMARY KEY (host, ts))")
	if _, err := s.db.Exec("INSERT INTO copied SELECT ts, host, n FROM metrics WHERE host = 'nano'"); err == nil ||
		!strings.Contains(err.Error(), "1062") {
		t.Errorf("copy that loses a row: %v", err)
	}
}

func TestBodies(t *testing.T) {
	s := start(t, 1)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprint(z, "z v=1 5")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	large := strings.NewReader(strings.Repeat("m v=1 5\n", 5<<20))
	var bomb bytes.Buffer
	z = gzip.NewWriter(&bomb)
	if _, err := io.Copy(z, large); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		body     []byte
		encoding string
		want     int
	}{
		"gzip":      {zipped.Bytes(), "gzip", 204},
		"no gzip":   {[]byte("z v=1 5"), "gzip", 400},
		"cut gzip":  {zipped.Bytes()[:zipped.Len()-9], "gzip", 400},
		"zip bomb":  {bomb.Bytes(), "gzip", 413},
		"encoding":  {[]byte("z v=1 5"), "br", 415},
		"too large": {bytes.Repeat([]byte("#\n"), 17<<20), "", 413},
	} {
		request, err := http.NewRequest(http.MethodPost, s.http+"/write?db=public", bytes.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Encoding", c.encoding)
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, text, c.want)
		}
	}
	resp, err := http.Get(s.http + "/write")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET /write: %d", resp.StatusCode)
	}
	if resp, err = http.Get(s.http + "/health"); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET /health: %d", resp.StatusCode)
	}
}

// TestConcurrentFirstPoints: many clients write the first points of one measurement at a time.
func TestConcurrentFirstPoints(t *testing.T) {
	s := start(t, 2)
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			resp, err := http.Post(s.http+"/write", "text/plain", strings.NewReader(fmt.Sprintf("m,c=%d v=%di 7", i, i)))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNoContent {
				t.Errorf("client %d: %d %s", i, resp.StatusCode, text)
			}
		})
	}
	clients.Wait()
	if got := s.query("SELECT count(*), sum(v) FROM m"); got != "8|28" {
		t.Errorf("stored %s", got)
	}
}
