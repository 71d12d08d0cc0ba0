package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// links are the ways between members: each connection to a raft port goes through a proxy, which can hold back what is
// sent in one direction, or break it.
type links struct {
	t       *testing.T
	members []*member
	// pids has the present process of each member, by id.
	pids sync.Map

	mu      sync.Mutex
	held    map[[2]string]chan struct{}
	conns   map[net.Conn][2]string
	closed  bool
	running sync.WaitGroup
	ports   []net.Listener
}

// newLinks puts a proxy before the raft port of each member.
func newLinks(t *testing.T, members []*member) *links {
	l := &links{t: t, members: members, held: map[[2]string]chan struct{}{}, conns: map[net.Conn][2]string{}}
	for _, m := range members {
		port, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.ports = append(l.ports, port)
		m.via = port.Addr().String()
		l.running.Go(func() { l.accept(port, m) })
	}
	t.Cleanup(l.close)
	return l
}

func (l *links) close() {
	l.mu.Lock()
	l.closed = true
	for _, port := range l.ports {
		_ = port.Close()
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	for link, held := range l.held {
		close(held)
		delete(l.held, link)
	}
	l.mu.Unlock()
	l.running.Wait()
}

func (l *links) accept(port net.Listener, to *member) {
	for {
		conn, err := port.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.serve(conn, to) })
	}
}

// serve joins an accepted connection with one to the member.
func (l *links) serve(conn net.Conn, to *member) {
	defer conn.Close()
	from := l.owner(conn.RemoteAddr().String())
	if from == "" || !l.track(conn, from, to.id) {
		return
	}
	defer l.untrack(conn)
	target, err := net.DialTimeout("tcp", to.raft, time.Second)
	if err != nil {
		return
	}
	defer target.Close()
	if !l.track(target, from, to.id) {
		return
	}
	defer l.untrack(target)
	var both sync.WaitGroup
	both.Go(func() { l.copy(target, conn, [2]string{from, to.id}) })
	both.Go(func() { l.copy(conn, target, [2]string{to.id, from}) })
	both.Wait()
}

// copy sends on what arrives, unless the link is held.
func (l *links) copy(to, from net.Conn, link [2]string) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		l.pass(link)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass returns when a link is not held.
func (l *links) pass(link [2]string) {
	for {
		l.mu.Lock()
		held := l.held[link]
		l.mu.Unlock()
		if held == nil {
			return
		}
		<-held
	}
}

func (l *links) track(conn net.Conn, from, to string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[conn] = [2]string{from, to}
	return true
}

func (l *links) untrack(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// hold keeps back what one member sends to another one, until release.
func (l *links) hold(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	link := [2]string{from, to}
	if l.held[link] == nil && !l.closed {
		l.held[link] = make(chan struct{})
	}
}

func (l *links) release(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	link := [2]string{from, to}
	if held := l.held[link]; held != nil {
		close(held)
		delete(l.held, link)
	}
}

// reset breaks the connections of a member.
func (l *links) reset(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn, link := range l.conns {
		if link[0] == id || link[1] == id {
			_ = conn.Close()
		}
	}
}

// owner returns the member whose process has the socket with a local address: all members dial from 127.0.0.1.
func (l *links) owner(addr string) string {
	inode := socketOf(addr)
	if inode == "" {
		return ""
	}
	owner := ""
	l.pids.Range(func(id, pid any) bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, file := range files {
			if target, _ := os.Readlink(file); target == "socket:["+inode+"]" {
				owner = id.(string)
				return false
			}
		}
		return true
	})
	return owner
}

// socketOf returns the inode of the socket with a local address, as the kernel lists it.
func socketOf(addr string) string {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return ""
	}
	want := fmt.Sprintf("0100007F:%04X", tcp.Port)
	list, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer list.Close()
	for lines := bufio.NewScanner(list); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[1] == want {
			return fields[9]
		}
	}
	return ""
}
