package proc

import (
	"fmt"
	"strings"
	"testing"
)

// TestCPUs runs a program on one CPU, while this process stays on all that it has.
func TestCPUs(t *testing.T) {
	before, err := OwnCPUs()
	if err != nil || len(before) == 0 {
		t.Fatalf("this process may run on %v (%v)", before, err)
	}
	last := before[len(before)-1]
	p, err := Start(t.Context(), Command{Path: "grep", Args: []string{"Cpus_allowed_list", "/proc/self/status"}, CPUs: CPUs{last}})
	if err != nil {
		t.Fatal(err)
	}
	if code := p.Wait(); code != 0 || !strings.HasSuffix(p.Output(), fmt.Sprintf("\t%d\n", last)) {
		t.Errorf("a program that is to run on CPU %d says, with code %d: %s", last, code, p.Output())
	}
	if err := before[:1].Stay(); err != nil {
		t.Fatal(err)
	}
	if now, err := OwnCPUs(); len(now) != 1 || now[0] != before[0] {
		t.Errorf("this process was to stay on %v and is on %v (%v)", before[:1], now, err)
	}
	if err := before.Stay(); err != nil {
		t.Fatal(err)
	}
	if now, err := OwnCPUs(); len(now) != len(before) {
		t.Errorf("this process is on %v, not on %v (%v)", now, before, err)
	}
}
