package conformance

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Exec returns a Client that runs a command line for sh. The program and its children end with the
// scenario.
func Exec(command string) Client {
	return func(ctx context.Context, node, scenario string) (string, error) {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Env = append(os.Environ(), NodeVariable+"="+node, ScenarioVariable+"="+scenario)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		// kill the children of sh, too
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		out := new(tail)
		cmd.Stdout, cmd.Stderr = out, out
		err := cmd.Run()
		if ctx.Err() != nil || errors.Is(err, exec.ErrWaitDelay) {
			err = nil // we have ended it ourselves
		}
		return out.String(), err
	}
}

// tail keeps the end of what is written to it. Its methods may be called from any goroutine.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const maxTail = 2000 // bytes

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	t.buf = t.buf[max(0, len(t.buf)-maxTail):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
