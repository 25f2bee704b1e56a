package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/internal/certs/certstest"
	"distmsg/loadtest"
)

// asProgram makes the binary of the tests the program itself.
const asProgram = "DISTMSG_TEST_AS_LOADTEST"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is loadtest in a process of its own.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  *bufio.Reader // of stderr
	stdout bytes.Buffer
}

// start starts the program. It is killed at the end of the test.
func start(t *testing.T, args string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: exec.Command(self, strings.Fields(args)...)}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stdout = &p.stdout
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewReader(stderr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

// line returns the next line of stderr. It waits for it.
func (p *program) line() string {
	p.t.Helper()
	line, err := p.lines.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%v: %q", err, line)
	}
	return strings.TrimSpace(line)
}

// signal sends a signal.
func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns the exit code, and what was left on stderr.
func (p *program) wait() (code loadtest.ExitCode, stderr string) {
	rest, _ := io.ReadAll(p.lines)
	_ = p.cmd.Wait()
	return loadtest.ExitCode(p.cmd.ProcessState.ExitCode()), string(rest)
}

// startAgents starts two agents with a token and TLS, and returns their addresses and the flags of
// run for them.
func startAgents(t *testing.T) (agents []*program, addrs []string, flags string) {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("of sixteen characters or more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := certstest.NewCA(t, "ca")
	pair, authority := ca.Issue(t, certstest.Request{}).Write(t, dir, "agent"), ca.Write(t, dir)
	for range 2 {
		p := start(t, "agent --listen 127.0.0.1:0 --token-file "+token+" --agent-tls-cert "+pair.CertFile+" --agent-tls-key "+pair.KeyFile)
		addr, ok := strings.CutPrefix(p.line(), "listening on ")
		if !ok {
			t.Fatal("an agent does not say where it listens")
		}
		agents, addrs = append(agents, p), append(addrs, addr)
	}
	return agents, addrs, "run --nodes " + startNode(t, "a", nil, nil).Addr().String() + " --conns 9 --ids-per-conn 2 --window 3 --agents " + strings.Join(addrs, ",") + " --agent-token-file " + token + " --agent-tls --agent-tls-ca " + authority
}

// TestAgents makes a run of two agents: one ledger, and counts that are the sums of theirs. While
// it goes on, the agents refuse another one.
func TestAgents(t *testing.T) {
	t.Parallel()
	agents, addrs, flags := startAgents(t)
	file := filepath.Join(t.TempDir(), "out.json")
	first := start(t, flags+" --duration forever --warmup 0 --fail-if faults>0 --server-pid "+strconv.Itoa(os.Getpid())+" --json "+file)
	first.line() // a second of the run is over
	code, why := start(t, flags).wait()
	if code != loadtest.ExitFailure || !strings.Contains(why, "one run at a time") || !strings.Contains(why, addrs[0]) && !strings.Contains(why, addrs[1]) {
		t.Errorf("a second run: exit code %d, %q", code, why)
	}
	first.signal(os.Interrupt) // the end of a run without an end is no interruption
	if code, why := first.wait(); code != loadtest.ExitOK {
		t.Fatalf("exit code %d, %q\n%s", code, why, &first.stdout)
	}
	var r loadtest.Report
	if data, err := os.ReadFile(file); err != nil || json.Unmarshal(data, &r) != nil {
		t.Fatalf("%v: %s", err, data)
	}
	checkSums(t, &r, addrs)
	for _, a := range agents {
		a.signal(syscall.SIGTERM)
		if code, rest := a.wait(); code != loadtest.ExitOK || !strings.Contains(rest, "faults 0") {
			t.Errorf("an agent that was stopped: exit code %d, %q", code, rest)
		}
	}
}

// checkSums checks that the report is the sum of its agents.
func checkSums(t *testing.T, r *loadtest.Report, addrs []string) {
	t.Helper()
	if r.Partial || r.Faults.Total() != 0 || len(r.Agents) != 2 || r.Config.Conns != 9 || r.Sent == 0 {
		t.Fatalf("%+v", r)
	}
	if r.ServerCPU == nil || r.ServerRSS == nil || r.Versions.Server == "" {
		t.Errorf("nothing is known of the server: %+v, %q", r.Versions, r.ServerError)
	}
	var conns int
	var sent, delivered, acked, inTime uint64
	var measured float64 // messages
	for i, a := range r.Agents {
		if a.Address != addrs[i] || a.Sent == 0 || a.ClockBound <= 0 || a.ClockDrift == nil || a.Late < 0 {
			t.Errorf("agent %+v", a)
		}
		measured += *a.Rate * float64(a.Measured)
		conns, sent, delivered, acked = conns+a.Conns, sent+a.Sent, delivered+a.Delivered, acked+a.Acked
	}
	for _, p := range r.Timeline {
		inTime += p.Sent
	}
	if conns != 9 || sent != r.Sent || delivered != r.Delivered || acked != r.Acked || r.Outcomes["acked"] != acked || inTime != sent || acked != sent {
		t.Errorf("%d connections, %d sent (%d in the timeline), %d delivered, %d acked; the report: %+v", conns, sent, inTime, delivered, acked, r)
	}
	var counted int64
	for _, bar := range r.Distribution {
		counted += bar.Count
	}
	if r.Latency == nil || math.Abs(float64(counted)-measured) > 0.5 {
		t.Errorf("the distribution has %d messages, %g were measured", counted, measured)
	}
}

// TestAgentDies kills an agent in the middle of a run. The run ends with an error that names it,
// and reports what the other agent found. That one serves the next run.
func TestAgentDies(t *testing.T) {
	t.Parallel()
	agents, addrs, flags := startAgents(t)
	file := filepath.Join(t.TempDir(), "out.json")
	run := start(t, flags+" --duration 1h --json "+file)
	run.line()
	agents[1].signal(syscall.SIGKILL)
	code, why := run.wait()
	if code != loadtest.ExitFailure || !strings.Contains(why, "agent "+addrs[1]+" has died") {
		t.Errorf("exit code %d, %q, want the address %s", code, why, addrs[1])
	}
	r, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	if left, dead := &r.Agents[0], &r.Agents[1]; left.Failed != "" || left.Sent == 0 || left.Sent != r.Sent || dead.Sent != 0 || !strings.Contains(dead.Failed, "has died") {
		t.Errorf("sent %d, by agents %+v", r.Sent, r.Agents)
	}
	if out := run.stdout.String(); !strings.Contains(out, addrs[1]+": 5 connections, LOST") || !strings.Contains(out, "NOT COMPLETE") {
		t.Errorf("it prints %s", out)
	}
	alone := strings.Replace(flags, strings.Join(addrs, ","), addrs[0], 1) + " --warmup 0 --duration 100ms"
	for deadline := time.Now().Add(20 * time.Second); ; {
		code, why := start(t, alone).wait()
		if code == loadtest.ExitOK {
			return
		}
		if !strings.Contains(why, "one run at a time") || time.Now().After(deadline) {
			t.Fatalf("the other agent: exit code %d, %q", code, why)
		}
	}
}

// TestAgentUsage gives an agent, and a run with agents, flags that they cannot have.
func TestAgentUsage(t *testing.T) {
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, says := range map[string]string{
		"agent --listen 0.0.0.0:0":                                           "needs --token-file",
		"agent --listen :0":                                                  "needs --token-file",
		"agent --listen here":                                                "want host:port",
		"agent --agent-tls-cert f":                                           "go together",
		"agent --agent-tls-client-ca f":                                      "needs --agent-tls-cert",
		"agent --agent-tls-cert f --agent-tls-key f":                         "--agent-tls-cert and the flags",
		"--agent-tls --nodes a:1":                                            "need --agents",
		"--agents a:1 --nodes a:1 --agent-tls-ca f":                          "need --agent-tls",
		"--agents a:1 --nodes a:1 --agent-tls --agent-tls-ca no-such-file":   "no-such-file",
		"soak --out o --agent-tls":                                           "is not for a soak",
		"agent --token-file " + short:                                        "6 characters",
		"agent --token-file missing":                                         "--token-file: ",
		"--agents a:1":                                                       "--agents needs running nodes",
		"--agents a:1,a:1 --nodes b:1":                                       "--agents has a:1 twice",
		"--agents a:1 --nodes b:1 --credentials-file " + short:               "give them to loadtest agent",
		"--agents a:1,b:1 --nodes b:1 --conns 1":                             "--conns is 1",
		"--agent-token-file " + short:                                        "needs --agents",
		"--agents a:1 --discovery zk://b:1/c --discovery-auth-file " + short: "give it to loadtest agent",
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(args), &stdout, &stderr); code != loadtest.ExitUsage || !strings.Contains(stderr.String(), says) {
			t.Errorf("loadtest %s: exit code %d, %q, want %q", args, code, &stderr, says)
		}
	}
}
