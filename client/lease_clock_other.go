//go:build !linux

package client

import "time"

var processStart = time.Now()

// leaseClock is the monotonic clock. Whether it counts the time that the machine was suspended depends on the system.
func leaseClock() time.Duration { return time.Since(processStart) }
