package links_test

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/metasrv/metasrv/internal/links"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each byte by itself, on every connection, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = port.Close() })
	go func() {
		for {
			conn, err := port.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return port.Addr().String()
}

// answer sends a byte and returns whether the same one came back within a time.
func answer(t *testing.T, conn net.Conn, within time.Duration) bool {
	t.Helper()
	if _, err := conn.Write([]byte{7}); err != nil {
		return false
	}
	return comes(t, conn, within)
}

func comes(t *testing.T, conn net.Conn, within time.Duration) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	_, err := conn.Read(b)
	return err == nil && b[0] == 7
}

func TestLinks(t *testing.T) {
	l := links.New()
	defer l.Close()
	via, err := l.Listen("server", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	stranger := dial(t, via)
	if answer(t, stranger, 5*time.Second) {
		t.Error("a process without a name was served")
	}

	l.Started("client", os.Getpid())
	conn := dial(t, via)
	if !answer(t, conn, 5*time.Second) {
		t.Fatal("no answer through the proxy")
	}
	for _, way := range [][2]string{{"client", "server"}, {"server", "client"}} {
		l.Hold(way[0], way[1])
		if answer(t, conn, 50*time.Millisecond) {
			t.Errorf("%s to %s is held, and passes", way[0], way[1])
		}
		l.Release(way[0], way[1])
		if !comes(t, conn, 5*time.Second) {
			t.Errorf("%s to %s was released, and what was held did not come", way[0], way[1])
		}
	}
	l.Reset("client")
	if answer(t, conn, 5*time.Second) {
		t.Error("a connection outlived its reset")
	}
	if conn = dial(t, via); !answer(t, conn, 5*time.Second) {
		t.Error("no answer on a new connection")
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
