package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/internal/cli"
)

const patience = 2 * time.Minute // the first build of relay may take long

// A cluster starts, starts again what dies, and leaves nothing behind.
func TestCluster(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, options{nodes: 2, logs: true}, writer)
		writer.Close()
		ended <- err
	}()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(reader); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var pids []int
	waitFor := func(pattern string) (groups []string) {
		t.Helper()
		re := regexp.MustCompile(pattern)
		for deadline := time.After(patience); ; {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("no line matches %s; %v", pattern, <-ended)
				}
				t.Log(line)
				if groups := re.FindStringSubmatch(line); groups != nil {
					return groups
				}
			case <-deadline:
				t.Fatalf("no line matches %s", pattern)
			}
		}
	}
	pid := func(pattern string) {
		t.Helper()
		n, err := strconv.Atoi(waitFor(pattern + `.* pid (\d+)`)[1])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, n)
	}
	waitFor("^n1  .*relay serves")
	pid("^redis ")
	pid("^zookeeper ")
	pid("^n1 ")
	pid("^n2 ")
	waitFor("loadtest --discovery zk://127.0.0.1:")
	waitFor("Ctrl-C ends all")
	if err := syscall.Kill(pids[3], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor("^n2, pid " + strconv.Itoa(pids[3]) + ", has died")
	pid("^n2 is back,")
	stop()
	waitFor("^stopping")
	go func() {
		for range lines {
		}
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

// TestKilledGoRun kills the go run that a cluster was started with. The cluster ends, as Ctrl-C
// would have ended it. It is not the first go run: from the second on, the program stands in go's
// cache.
func TestKilledGoRun(t *testing.T) {
	if out, err := exec.Command("go", "run", ".", "--version").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	goRun := exec.Command("go", "run", ".", "--nodes=1", "--port=0", "--redis-port=0", "--zookeeper-port=0")
	out, err := goRun.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := goRun.Start(); err != nil {
		t.Fatal(err)
	}
	killed, drained := false, false
	for s := bufio.NewScanner(out); s.Scan(); { // until the last process that has the pipe ends
		t.Log(s.Text())
		if s.Text() == "Ctrl-C ends all." {
			killed = goRun.Process.Kill() == nil
		}
		drained = drained || strings.HasPrefix(s.Text(), "stopping")
	}
	if err := goRun.Wait(); !killed || !drained {
		t.Errorf("killed %v, stopped in good order %v: %v", killed, drained, err)
	}
}

func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	for _, tc := range []struct {
		args []string
		code int
		line string
	}{
		{[]string{"--redis-port=" + port}, cli.ExitFailure, "port " + port + " is in use, perhaps by another cluster: end that, or choose another with --redis-port"},
		{[]string{"--redis-port=0", "--zookeeper-port=" + port}, cli.ExitFailure, "choose another with --zookeeper-port"},
		{[]string{"--nodes=0"}, cli.ExitUsage, "--nodes 0: want 1 to 100"},
	} {
		var stderr strings.Builder
		cmd := newCommand()
		cmd.SetOut(io.Discard)
		if code := cli.Execute(cmd, tc.args, &stderr); code != tc.code || !strings.Contains(stderr.String(), tc.line) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%v: exit code %d, %q; want %d, %q", tc.args, code, stderr.String(), tc.code, tc.line)
		}
	}
}
