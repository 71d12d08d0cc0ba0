// Package sim tests three whole members in one process, in simulated time: thousands of short schedules of faults,
// each from a seed. SEED=n repeats one.
package sim
