package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// pair returns the two ends of a connection from host a to host b.
func pair(t *testing.T, n *Net) (a, b net.Conn) {
	t.Helper()
	l, err := n.Host("b").Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	a, err = n.Host("a").Dial(t.Context(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	return a, <-accepted
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := c.Write([]byte(text)); err != nil || n != len(text) {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
}

// receive returns what arrives within a time.
func receive(t *testing.T, c net.Conn, within time.Duration) (string, error) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func want(t *testing.T, c net.Conn, within time.Duration, text string, reason error) {
	t.Helper()
	if got, err := receive(t, c, within); got != text || !errors.Is(err, reason) {
		t.Errorf("received %q, %v; want %q, %v", got, err, text, reason)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Net
		a, b := pair(t, &n)
		n.Delay("a", "b", time.Second)
		send(t, a, "slow")
		n.Delay("a", "b", 0)
		send(t, a, "behind")
		want(t, b, 999*time.Millisecond, "", os.ErrDeadlineExceeded)
		want(t, b, time.Millisecond+1, "slow", nil)
		want(t, b, time.Millisecond, "behind", nil)
		send(t, b, "back")
		want(t, a, time.Millisecond, "back", nil)
	})
}

func TestHeldLinkDeliversLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Net
		a, b := pair(t, &n)
		n.Hold("a", "b")
		send(t, a, "late")
		want(t, b, time.Hour, "", os.ErrDeadlineExceeded)
		send(t, b, "other way")
		want(t, a, time.Millisecond, "other way", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host("b").Dial(ctx, "a:1"); err == nil || ctx.Err() == nil {
			t.Errorf("dialled over a held link: %v", err)
		}
		n.Release("a", "b")
		want(t, b, time.Millisecond, "late", nil)
	})
}

func TestCloseArrivesBehindTheData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Net
		a, b := pair(t, &n)
		send(t, a, "last words")
		_ = a.Close()
		want(t, b, time.Second, "last words", nil)
		want(t, b, time.Second, "", io.EOF)
		want(t, b, time.Second, "", io.EOF)
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("wrote to a closed connection")
		}
		want(t, a, time.Second, "", net.ErrClosed)
	})
}

func TestCutBreaksAndCrashEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Net
		a, b := pair(t, &n)
		send(t, a, "lost")
		n.Cut("b:1")
		want(t, b, time.Second, "", errReset)
		want(t, a, time.Second, "", errReset)
		n.Heal("b")
		a, _ = pair(t, &n)
		old := n.Host("b")
		if _, err := old.Listen("b:2"); err != nil {
			t.Fatal(err)
		}
		n.Crash(old)
		want(t, a, time.Second, "", errReset)
		if _, err := n.Host("a").Dial(t.Context(), "b:2"); err == nil {
			t.Error("dialled a host that has crashed")
		}
		if _, err := old.Dial(t.Context(), "a:1"); err == nil {
			t.Error("a host that has crashed dialled")
		}
		if _, err := n.Host("b").Listen("b:2"); err != nil {
			t.Errorf("the host can't come back: %v", err)
		}
	})
}

// Who sends more than is read waits, until the deadline.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Net
		a, b := pair(t, &n)
		send(t, a, string(make([]byte, windowBytes)))
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := a.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote beyond the window: %v", err)
		}
		_ = a.SetWriteDeadline(time.Time{})
		go func() { _, _ = io.Copy(io.Discard, b) }()
		send(t, a, "y")
		_ = a.Close()
	})
}
