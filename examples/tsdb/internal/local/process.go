package local

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is one program of the cluster.
type Process struct {
	Name string
	// Log is the file with what it prints.
	Log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs a program, with additions to the environment; what it prints is added to a file in dir.
func Start(dir, name, bin string, environment []string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	file, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	p.cmd = exec.Command(bin, args...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Env = append(os.Environ(), environment...)
	endWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running returns an error, with the end of the log, if the process has ended.
func (p *Process) Running() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself (%s); its last lines:\n%s", p.Name, p.cmd.ProcessState, p.tail())
	default:
		return nil
	}
}

// tail returns the last lines that the process printed.
func (p *Process) tail() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-8):], []byte("\n")))
}

// Kill ends the process without a warning, as kill -9 does.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Pause stops the process until Resume, as SIGSTOP does.
func (p *Process) Pause() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

const stopTimeout = 15 * time.Second

// Stop asks the process to end, and ends it where it doesn't in time.
func (p *Process) Stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		// One that was still starting ends by the signal itself.
		status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		bySignal := status.Signaled() && status.Signal() == syscall.SIGTERM
		if p.err != nil && !bySignal {
			return fmt.Errorf("%s, asked to stop, ended with %w; its last lines:\n%s", p.Name, p.err, p.tail())
		}
		return nil
	case <-time.After(stopTimeout):
		p.Kill()
		return fmt.Errorf("%s did not stop within %s", p.Name, stopTimeout)
	}
}

// Ports for processes are below those that systems give to outgoing connections: while a process is away, no connection
// takes its port.
const firstPort, portCount = 12000, 20000

// freeAddrs returns addresses on loopback that nobody listens on.
func freeAddrs(n int) ([]string, error) {
	addrs := make([]string, 0, n)
	for tries := 0; len(addrs) < n; tries++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(portCount))) //nolint:gosec // any port will do
		switch {
		case err != nil && tries > 100*n:
			return nil, err
		case err != nil:
			continue
		}
		defer func() { _ = l.Close() }() // all stay open until all are found, so that none is found twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
