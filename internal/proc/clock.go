package proc

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Clock is a wall clock with an offset that a test sets, for servers that are started with it.
type Clock struct {
	dir string
	env []string
}

//go:embed clock/clock.c
var clockSource string

// NewClock returns a clock that is right until Set changes it. It needs a C compiler, as the race
// detector does.
func NewClock(ctx context.Context) (*Clock, error) {
	dir, err := os.MkdirTemp("", "distmsg-clock-")
	if err != nil {
		return nil, err
	}
	c := &Clock{dir: dir}
	library := filepath.Join(dir, "clock.so")
	compile := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", library)
	compile.Stdin = strings.NewReader(clockSource)
	if out, err := compile.CombinedOutput(); err != nil {
		c.Close()
		return nil, fmt.Errorf("gcc: %w: %s", err, out)
	}
	if err := c.Set(0); err != nil {
		c.Close()
		return nil, err
	}
	c.env = []string{"LD_PRELOAD=" + library, "DISTMSG_CLOCK=" + c.file()}
	return c, nil
}

// environment returns the environment of a program that uses the clock. For a nil Clock it is
// empty.
func (c *Clock) environment() []string {
	if c == nil {
		return nil
	}
	return c.env
}

func (c *Clock) file() string { return filepath.Join(c.dir, "off") }

// Set sets the offset of the clock, also for servers that already run. It does not affect monotonic
// clocks.
func (c *Clock) Set(off time.Duration) error {
	f, err := os.OpenFile(c.file(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(binary.NativeEndian.AppendUint64(nil, uint64(off.Microseconds())))
	return err
}

// Close removes the clock's files. The servers that use it must have ended.
func (c *Clock) Close() { os.RemoveAll(c.dir) }
