package raftfsm

// diskLock is a mutex for who holds it while the disk works. In a test with simulated time a sync.Mutex would not do: the
// time, by which the disk goes on, stands still while a goroutine waits for one.
type diskLock chan struct{}

// Lock waits for the lock.
func (l diskLock) Lock() { l <- struct{}{} }

// Unlock gives it back.
func (l diskLock) Unlock() { <-l }

// TryLock takes the lock if it is free.
func (l diskLock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}
