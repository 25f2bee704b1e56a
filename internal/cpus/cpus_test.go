package cpus

import (
	"runtime"
	"testing"
)

// Spare raises GOMAXPROCS, and not the number of CPUs that the process may use.
func TestSpare(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, loops := range []int{2, 1, 4} {
		if procs := Spare(loops); procs <= loops {
			t.Errorf("GOMAXPROCS is %d with %d loops", procs, loops)
		}
		if n := Usable(); n != 1 {
			t.Errorf("%d CPUs with room for %d loops, want 1", n, loops)
		}
	}
	runtime.GOMAXPROCS(1)
	if n := Usable(); n != 1 {
		t.Errorf("%d CPUs after somebody else has set GOMAXPROCS to 1", n)
	}
}

// What the environment says stays.
func TestSpareKeepsTheEnvironment(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if procs := Spare(3); procs != 1 {
		t.Errorf("GOMAXPROCS is %d, want 1", procs)
	}
}
