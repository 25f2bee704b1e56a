package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// for a program to become ready; on a busy machine a JVM takes half a minute
	startTimeout = 2 * time.Minute
	stopTimeout  = 30 * time.Second // from SIGTERM to SIGKILL
	pollInterval = 10 * time.Millisecond
)

// Command says what to run.
type Command struct {
	Path string   // a file, or a name that is searched in PATH
	Args []string // without the program's name
	Env  []string // in addition to this process's
	Dir  string   // working directory; empty: this process's
	Host *Host    // where it runs; nil: where this process does
	CPUs CPUs     // the CPUs that it runs on; empty: those of this process

	// Log, if not nil, receives what the program writes to stdout and stderr while it runs. A
	// writer that blocks also blocks the program.
	Log io.Writer

	// Stderr receives the program's stderr in place of Output and Log. If it is nil, they receive
	// it.
	Stderr *os.File

	// Ready is called repeatedly until it returns nil. It may read p.Output. If Ready is nil, the
	// program is ready at once.
	Ready func(ctx context.Context, p *Process) error

	name string // for messages and ps; empty: Path
}

func (c Command) String() string { return cmp.Or(c.name, c.Path) }

// Process is a program that runs or has run. Any goroutine may call its methods, but calls that
// start or end it must not overlap.
type Process struct {
	command Command
	output  tail

	mu      sync.Mutex
	current *run // guarded by mu
}

// run is one life of a Process.
type run struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; set before done is closed
}

// Start runs a program and waits until it is ready, for 30 s at most. If Start fails, the program
// no longer runs, and the error quotes the end of its output.
func Start(ctx context.Context, command Command) (*Process, error) {
	p := &Process{command: command}
	if err := p.Restart(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Restart runs the program again, with the same command, and waits until it is ready. It must have
// ended.
func (p *Process) Restart(ctx context.Context) error {
	r, err := launch(p.command, &p.output)
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", p.command, err)
	}
	p.mu.Lock()
	p.current = r
	p.mu.Unlock()
	if err := p.waitReady(ctx, r); err != nil {
		p.Kill()
		out := p.Output()
		if out == "" {
			return fmt.Errorf("%s: %w; it has said nothing", p.command, err)
		}
		return fmt.Errorf("%s: %w; its output ends:\n%s", p.command, err, out[max(0, len(out)-2000):])
	}
	return nil
}

// launch starts a child that the kernel kills when this process dies. For the kernel, the parent is
// not the process but the thread that forked. So a goroutine that is locked to the thread keeps it
// alive until the child has ended.
func launch(command Command, output *tail) (*run, error) {
	cmd := exec.Command(command.Path, command.Args...)
	cmd.Args[0] = command.String()
	cmd.Env = append(os.Environ(), command.Env...)
	cmd.Dir = command.Dir
	var out io.Writer = output
	if command.Log != nil {
		out = io.MultiWriter(output, command.Log)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if command.Stderr != nil {
		cmd.Stderr = command.Stderr
	}
	cmd.WaitDelay = time.Second // for the output, if a child of the child still holds the pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // this process handles Ctrl-C
	}
	r := &run{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(r.done)
		err := command.CPUs.do(func() error { return command.Host.Do(cmd.Start) })
		started <- err
		if err == nil {
			r.err = cmd.Wait()
		}
	}()
	return r, <-started
}

func (p *Process) waitReady(ctx context.Context, r *run) error {
	if p.command.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := p.command.Ready(attempt, p)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-r.done:
			if r.err == nil {
				return errors.New("ended with exit code 0 before it was ready")
			}
			return fmt.Errorf("ended before it was ready (%w)", r.err)
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", err)
		case <-poll.C:
		}
	}
}

func (p *Process) run() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// PID returns the process ID of the program's latest life.
func (p *Process) PID() int { return p.run().cmd.Process.Pid }

// Done is closed when the latest life has ended.
func (p *Process) Done() <-chan struct{} { return p.run().done }

// Wait waits for the end of the latest life and returns the exit code, -1 if a signal ended it.
func (p *Process) Wait() int {
	r := p.run()
	<-r.done
	return r.cmd.ProcessState.ExitCode()
}

// Output returns the end of what the program has written to stdout and stderr, in all its lives.
func (p *Process) Output() string { return p.output.String() }

// Signal sends a signal. It does nothing if the program has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.run().cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Pause stops the program (SIGSTOP): it does not answer, and its connections stay open.
func (p *Process) Pause() error { return p.Signal(syscall.SIGSTOP) }

// Resume continues a paused program (SIGCONT).
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Kill ends the program without a warning (SIGKILL), paused or not, and waits until it has ended.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.run().done
}

// Stop asks the program to end (SIGTERM) and waits for it. If the program has not ended after 30 s,
// Stop kills it and returns an error.
func (p *Process) Stop() error {
	r := p.run()
	if err := errors.Join(p.Resume(), p.Signal(syscall.SIGTERM)); err != nil {
		return err
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-r.done:
		return nil
	case <-timeout.C:
		p.Kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM", p.command, stopTimeout)
	}
}

// Build compiles packages of the module distmsg, named from its root ("./cmd/relay"), and writes
// the programs to dir. The calling test may belong to another module that requires distmsg. In a
// workspace, Build can compile "./examples/…", too.
func Build(ctx context.Context, dir string, packages ...string) error {
	return build(ctx, nil, append([]string{"build", "-o", dir + "/"}, packages...)...)
}

// BuildTool compiles a package in the version that tools/go.mod names, and writes the program to
// dir.
func BuildTool(ctx context.Context, dir, pkg string) error {
	return build(ctx, []string{"GOWORK=off"}, "build", "-modfile=tools/go.mod", "-o", dir+"/", pkg)
}

// buildCached is Build for one package. Unlike go build, go run keeps the linked program in the
// build cache, so that of many processes only the first one links it. The program does not know its
// commit.
func buildCached(ctx context.Context, dir, pkg string) error {
	return build(ctx, nil, "run", "-exec", "cp -t '"+dir+"'", pkg)
}

// build runs the go command in the root of the module distmsg.
func build(ctx context.Context, env []string, args ...string) error {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "distmsg")
	root, err := list.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const tailKept = 64 << 10

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailKept {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-tailKept:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-tailKept):])
}
