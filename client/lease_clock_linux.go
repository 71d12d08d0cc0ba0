package client

import (
	"time"

	"golang.org/x/sys/unix"
)

// leaseClock counts the time that the machine was suspended, too.
func leaseClock() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic("client: CLOCK_BOOTTIME: " + err.Error()) // every Linux that Go runs on has it
	}
	return time.Duration(now.Nano())
}
