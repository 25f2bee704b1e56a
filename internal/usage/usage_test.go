package usage

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// TestOwn compares what is read of this process with what the kernel tells it directly.
func TestOwn(t *testing.T) {
	before := selfCPU(t)
	cpu, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const tick = time.Second / userHz
	if after := selfCPU(t); cpu < before-2*tick || cpu > after+2*tick {
		t.Errorf("CPU time %v, and getrusage says %v before and %v after", cpu, before, after)
	}
	rss, err := RSS(os.Getpid())
	if err != nil || rss < 1<<20 || rss > 1<<36 {
		t.Errorf("resident memory %d bytes (%v)", rss, err)
	}
}

// TestBusy wants the CPU time of the machine to be more than that of one of its processes.
func TestBusy(t *testing.T) {
	own := selfCPU(t)
	if busy, err := Busy(); err != nil || busy < own {
		t.Errorf("the machine has used %v (%v), and this process %v", busy, err, own)
	}
}

// TestFDs counts the files of this process, and one more.
func TestFDs(t *testing.T) {
	before, err := FDs(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if after, err := FDs(os.Getpid()); err != nil || after != before+1 {
		t.Errorf("%d files, and with one more %d (%v)", before, after, err)
	}
}

// TestEnded asks for a process that cannot be there.
func TestEnded(t *testing.T) {
	const nobody = 1 << 30
	if _, err := CPU(nobody); err == nil {
		t.Error("a process that is not there has used CPU time")
	}
	if _, err := RSS(nobody); err == nil {
		t.Error("a process that is not there has memory")
	}
	if _, err := FDs(nobody); err == nil {
		t.Error("a process that is not there has open files")
	}
}

func selfCPU(t *testing.T) time.Duration {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		t.Fatal(err)
	}
	return time.Duration(self.Utime.Nano() + self.Stime.Nano())
}
