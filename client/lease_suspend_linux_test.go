package client

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// suspended is set in the process that TestSuspendedProcess stops.
const suspended = "METASRV_TEST_SUSPENDED"

// Rule 16: a process that is stopped between its check before a write and the acknowledgement, for longer than its lease,
// acknowledges nothing when it goes on.
func TestSuspendedProcess(t *testing.T) {
	const shortLease = time.Second
	if os.Getenv(suspended) != "" {
		writeAroundAPause(shortLease)
		return
	}
	child := exec.Command(os.Args[0], "-test.run", "^TestSuspendedProcess$") //nolint:gosec // this test itself
	child.Env = append(os.Environ(), suspended+"=1")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "begun" {
		t.Fatalf("the process said %q, %v", lines.Text(), lines.Err())
	}
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(shortLease) // it has begun before, so this is longer than what is left
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go on\n")); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	if said := lines.Text(); !strings.Contains(said, metasrv.ErrOutcomeUnknown.Reason) && !strings.Contains(said, "the lease of region") {
		t.Errorf("after the pause the process said %q", said)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

// writeAroundAPause begins a write under a lease of the real clock, and ends it when told to.
func writeAroundAPause(lease time.Duration) {
	k := NewRegionKeeper()
	k.Lead(1, 10, 1)
	k.granted(k.sending([]*metasrvpb.RegionStat{leads(1, 1)}), lease, nil)
	w, err := k.BeginWrite(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("begun")
	bufio.NewScanner(os.Stdin).Scan()
	if err := w.End(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("acknowledged")
}
