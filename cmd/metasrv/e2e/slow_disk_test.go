package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slowDisk lets the syncs of one process take long: the kernel asks this process before each one (seccomp user
// notification), which answers when it likes. No rights are needed for that.
type slowDisk struct {
	// slow: each sync takes from minSync to maxSync.
	slow atomic.Bool
	// unavailable is set where the kernel doesn't offer it: no sync is slow then.
	unavailable atomic.Bool
}

const (
	minSync = 100 * time.Millisecond
	maxSync = 2 * time.Second

	// filterVar in the environment makes this test binary install the filter and become the program that its arguments
	// name.
	filterVar = "METASRV_E2E_FILTER"
	// filterSocket is the descriptor by which it hands over that of the kernel's questions.
	filterSocket = 3
)

// start starts a command whose syncs can be slow.
func (d *slowDisk) start(t *testing.T, cmd *exec.Cmd) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	near, far := os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far") //nolint:gosec // descriptors
	defer func() { _ = near.Close() }()
	cmd.Args = append([]string{self, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.Env = append(os.Environ(), filterVar+"=1")
	cmd.ExtraFiles = []*os.File{far}
	if err := errors.Join(cmd.Start(), far.Close()); err != nil {
		return err
	}
	conn, err := net.FileConn(near)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(waitLimit))
	questions, err := receiveDescriptor(conn.(*net.UnixConn))
	if err != nil {
		if !d.unavailable.Swap(true) {
			t.Logf("no disk can be slow here: %v", err)
		}
		return nil //nolint:nilerr // the process runs, its disk is as fast as it can
	}
	go d.answer(questions) // ends with the process
	return nil
}

// receiveDescriptor returns the descriptor in the message, or what the message says against it.
func receiveDescriptor(conn *net.UnixConn) (int, error) {
	text, rights := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := conn.ReadMsgUnix(text, rights)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil || len(messages) == 0 {
		return 0, errors.New(string(text[:n]))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// The kernel's struct seccomp_notif has 80 bytes and begins with the id, struct seccomp_notif_resp is the other one.
type (
	question [10]uint64
	reply    struct {
		id    uint64
		value int64
		err   int32
		flags uint32
	}
)

// goOn makes the kernel do what the process asked for (SECCOMP_USER_NOTIF_FLAG_CONTINUE).
const goOn = 1

// answer lets each sync go on, at once or later.
func (d *slowDisk) answer(questions int) {
	defer func() { _ = unix.Close(questions) }()
	for {
		ready := []unix.PollFd{{Fd: int32(questions), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if ready[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			return // the process has ended
		}
		var q question
		if control(questions, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&q)) != 0 {
			continue // who asked has been killed
		}
		if !d.slow.Load() {
			control(questions, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&reply{id: q[0], flags: goOn}))
			continue
		}
		wait := minSync + time.Duration(rand.Int64N(int64(maxSync-minSync))) //nolint:gosec // no secret
		own, err := unix.Dup(questions)
		if err != nil {
			return
		}
		time.AfterFunc(wait, func() {
			control(own, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&reply{id: q[0], flags: goOn}))
			_ = unix.Close(own)
		})
	}
}

func control(fd int, request uintptr, argument unsafe.Pointer) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)) //nolint:gosec // a descriptor
	return errno
}

// becomeFiltered installs the filter, hands over the descriptor of the questions, and becomes the program.
func becomeFiltered() error {
	runtime.LockOSThread() // the filter is of this thread, and of what it becomes
	fd, err := installFilter()
	if err == nil {
		err = unix.Sendmsg(filterSocket, []byte("here"), unix.UnixRights(fd), nil, 0)
	} else {
		err = unix.Sendmsg(filterSocket, []byte(err.Error()), nil, nil, 0)
	}
	if err != nil {
		return err
	}
	unix.CloseOnExec(filterSocket)
	if err := os.Unsetenv(filterVar); err != nil {
		return err
	}
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// installFilter makes the kernel ask before each sync of this thread.
func installFilter() (int, error) {
	const systemCall = 0 // where struct seccomp_data has the number
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: systemCall},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]} //nolint:gosec // five
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("give up rights: %w", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return 0, fmt.Errorf("install a seccomp filter: %w", errno)
	}
	return int(fd), nil //nolint:gosec // a descriptor
}
