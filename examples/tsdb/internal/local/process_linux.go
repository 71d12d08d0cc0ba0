package local

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel end the process when the program that started it is killed. A Ctrl-C at the terminal goes to
// that program only, which stops the processes in order.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
