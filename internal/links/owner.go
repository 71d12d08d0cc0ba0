package links

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// owner returns the name of the process that has the socket with a local address, empty where none with a name has it:
// all processes dial from 127.0.0.1.
func (l *Links) owner(addr string) string {
	inode := socketOf(addr)
	if inode == "" {
		return ""
	}
	owner := ""
	l.pids.Range(func(name, pid any) bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is none that is malformed
		for _, file := range files {
			if target, _ := os.Readlink(file); target == "socket:["+inode+"]" {
				owner = name.(string)
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
	defer func() { _ = list.Close() }()
	for lines := bufio.NewScanner(list); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[1] == want {
			return fields[9]
		}
	}
	return ""
}
