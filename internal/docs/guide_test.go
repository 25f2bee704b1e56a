package docs

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/client"
)

// guide returns the guide, and the program that its reader is to save.
func guide(t *testing.T) (text, hello string) {
	text = read(t, filepath.Join(root, "docs/guide.md"))
	var programs []string
	for _, m := range goBlock.FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(m[1], "package main\n") {
			programs = append(programs, m[1])
		}
	}
	if len(programs) != 1 {
		t.Fatalf("the guide has %d programs, want one", len(programs))
	}
	return text, programs[0]
}

// build builds a program of the guide and returns the file.
func build(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	source, file := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", file, source)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// The other Go code of the guide is that of the examples, which are tests.
func TestGuideCode(t *testing.T) {
	text, hello := guide(t)
	examples := read(t, filepath.Join(root, "client/example_test.go")) + read(t, "example_test.go")
	for _, code := range foreignCode(text, hello, examples) {
		t.Errorf("not in client/example_test.go or internal/docs/example_test.go:\n%s", code)
	}
}

// The guide's first program sends and receives, and prints what the guide says.
func TestGuideProgram(t *testing.T) {
	text, program := guide(t)
	hello := build(t, program)
	addr, stop := serve()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	online, got := make(chan string, 10), make(chan string, 1)
	s, err := client.Dial(ctx, client.Config{
		Nodes: []string{addr},
		Handler: func(_ context.Context, d *client.Delivery) {
			got <- d.From + ": " + string(d.Payload)
			d.Reply([]byte("seen"))
		},
		OnPresence: func(changed []client.Presence) { online <- changed[0].ID },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctx)
	if err := s.Bind(ctx, "alice"); err != nil {
		t.Fatal(err)
	}

	for to, want := range map[string]string{"alice": "acked: seen", "carol": "no_route, delivered: no, safe to retry: true, worth it: false"} {
		out, err := exec.CommandContext(ctx, hello, addr, "bob", to, "good morning").Output()
		if err != nil || string(out) != want+"\n" || !strings.Contains(text, want) {
			t.Errorf("to %s it prints %q, %v; want %q, and that in the guide: %v", to, out, err, want, strings.Contains(text, want))
		}
	}
	if m := <-got; m != "bob: good morning" {
		t.Errorf("alice got %q", m)
	}

	if _, err := s.Watch(ctx, "dave"); err != nil {
		t.Fatal(err)
	}
	holds := exec.CommandContext(ctx, hello, addr, "dave")
	stdout, err := holds.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if err := holds.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-online:
	case <-ctx.Done():
		t.Fatal("dave never came online")
	}
	reply, err := s.Send(ctx, client.Message{From: "alice", To: "dave", Payload: []byte("good morning")})
	if err != nil || string(reply.Payload) != "seen" {
		t.Errorf("dave answers %q, %v", reply.Payload, err)
	}
	prints := func(want string) {
		if line, _ := lines.ReadString('\n'); line != want+"\n" {
			t.Errorf("dave's prints %q, want %q", line, want)
		}
	}
	prints("alice to dave: good morning")
	if err := s.Bind(ctx, "dave"); err != nil {
		t.Fatal(err)
	}
	prints("dave is not ours any more: superseded")
	holds.Process.Signal(syscall.SIGINT)
	if err := holds.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
}

// The program that embeds a node answers the guide's program, and ends at Ctrl-C.
func TestGuideEmbeds(t *testing.T) {
	text, sender := guide(t)
	if !strings.Contains(text, "go run ./examples/clock ") {
		t.Error("the guide does not run examples/clock")
	}
	hello := build(t, sender)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	clock := exec.CommandContext(ctx, build(t, read(t, filepath.Join(root, "examples/clock/main.go"))), "127.0.0.1:0")
	stdout, err := clock.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clock.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "app servers connect to ")
	if !ok {
		t.Errorf("it prints %q", line)
	}
	out, err := exec.CommandContext(ctx, hello, addr, "bob", "clock", "what time is it?").Output()
	answer, acked := strings.CutPrefix(strings.TrimSpace(string(out)), "acked: ")
	if _, wrong := time.Parse(time.TimeOnly, answer); err != nil || !acked || wrong != nil {
		t.Errorf("hello prints %q, %v; want the time", out, err)
	}
	clock.Process.Signal(syscall.SIGINT)
	if err := clock.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
}
