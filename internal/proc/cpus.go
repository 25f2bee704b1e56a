package proc

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CPUs is a set of the machine's CPUs, by their numbers. Empty means no restriction.
type CPUs []int

// OwnCPUs returns the CPUs that this process may run on.
func OwnCPUs() (CPUs, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("cannot find out on which CPUs this process may run: %w", err)
	}
	var all CPUs
	for i := range len(set) * strconv.IntSize {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all, nil
}

func (c CPUs) set() *unix.CPUSet {
	var set unix.CPUSet
	for _, i := range c {
		set.Set(i)
	}
	return &set
}

// do calls f while this thread runs on these CPUs. A program that f starts stays on them. The
// caller must be locked to its thread.
func (c CPUs) do(f func() error) error {
	if len(c) == 0 {
		return f()
	}
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("cannot find out on which CPUs a thread may run: %w", err)
	}
	if err := unix.SchedSetaffinity(0, c.set()); err != nil {
		return fmt.Errorf("cannot run on the CPUs %v: %w", c, err)
	}
	err := f()
	// f has already started its program; if this fails, the thread stays on these CPUs
	_ = unix.SchedSetaffinity(0, &before)
	return err
}

// Stay moves this process to these CPUs: all its threads, and so the threads and programs that they
// start later.
func (c CPUs) Stay() error {
	moved := make(map[int]bool)
	for more := true; more; { // a thread may have been started meanwhile
		more = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || moved[tid] {
				continue
			}
			moved[tid], more = true, true
			if err := unix.SchedSetaffinity(tid, c.set()); err != nil && err != unix.ESRCH {
				return fmt.Errorf("cannot run on the CPUs %v: %w", c, err)
			}
		}
	}
	return nil
}
