package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/internal/cli"
)

// The tests run relay as a process of its own: this test binary, which becomes relay when asMain is
// set.
const asMain = "RELAY_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// patience bounds every wait; what takes longer has failed.
const patience = time.Minute

// process is a running relay.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of stderr; closed at its end
	log   []string    // those read so far
}

func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	// Under the race detector each process would sleep for a second at its end.
	cmd.Env = append(append(os.Environ(), asMain+"=1", "GORACE=atexit_sleep_ms=0"), env...)
	return cmd
}

// start runs relay on free ports of loopback; args come after those flags.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, lines: make(chan string, 1024)}
	p.cmd = command(t, env, append([]string{"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"}, args...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// waitFor reads the log up to a line that matches pattern and returns the pattern's groups.
func (p *process) waitFor(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("no line matches %s in:\n%s", pattern, strings.Join(p.log, "\n"))
			}
			p.log = append(p.log, line)
			if groups := re.FindStringSubmatch(line); groups != nil {
				return groups[1:]
			}
		case <-deadline:
			p.t.Fatalf("no line matches %s after %v in:\n%s", pattern, patience, strings.Join(p.log, "\n"))
		}
	}
}

// exit waits for the end of the process and returns its code and the log.
func (p *process) exit() (int, string) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if ok {
				p.log = append(p.log, line)
				continue
			}
			return exitCode(p.t, p.cmd.Wait()), strings.Join(p.log, "\n")
		case <-deadline:
			p.t.Fatalf("still running after %v:\n%s", patience, strings.Join(p.log, "\n"))
		}
	}
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return 0
}

// run runs relay to its end and returns its exit code and output.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := command(t, nil, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	return exitCode(t, cmd.Run()), out.String(), errOut.String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServe(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		sig  os.Signal
	}{
		{"no verb", nil, syscall.SIGTERM},
		// relay --listen=… serve: the flags may come first
		{"verb", []string{"serve"}, syscall.SIGINT},
		{"ipv6", []string{"--listen=[::1]:0", "--admin-listen=[::1]:0"}, syscall.SIGTERM},
		{"two loops", []string{"--loops=2", "--node-id=n1", "--log-format=json"}, syscall.SIGTERM},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if strings.Contains(tc.name, "ipv6") && !hasIPv6() {
				t.Skip("no IPv6 here")
			}
			p := start(t, nil, tc.args...)
			clients, admin := p.addresses()
			p.waitFor(`go run \./cmd/loadtest --nodes ` + regexp.QuoteMeta(clients))

			conn := dial(t, clients)
			if node := conn.hello(); tc.name == "two loops" && node != "n1" {
				t.Errorf("node is called %q, want n1", node)
			}
			for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "\ndistmsg_sessions "} {
				if code, body := get(t, admin+path); code != http.StatusOK || !strings.Contains(body, want) {
					t.Errorf("%s is %d %q, want 200 and %q", path, code, body, want)
				}
			}
			p.signal(tc.sig)
			if code, log := p.exit(); code != cli.ExitOK {
				t.Errorf("exit code %d after %v: %s", code, tc.sig, log)
			}
		})
	}
}

// addresses returns those that the log says: of clients, and the URL of the admin server.
func (p *process) addresses() (clients, admin string) {
	p.t.Helper()
	groups := p.waitFor(`clients"?[=:]"?([^" ]+).*admin"?[=:]"?([^" ,]+).*pid"?[=:]` + fmt.Sprint(p.cmd.Process.Pid))
	return groups[0], groups[1]
}

func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// A page in a browser whose name resolves to this machine cannot read what the node counts.
func TestAdminHost(t *testing.T) {
	_, admin := start(t, nil, "--admin-host=relay.internal,relay").addresses()
	for host, want := range map[string]int{"attacker.example": http.StatusMisdirectedRequest, "relay": http.StatusOK, "localhost:7401": http.StatusOK} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, admin+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %q: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestAdminOff(t *testing.T) {
	for _, off := range []string{"--admin-listen=", "--admin-listen=none"} {
		p := start(t, nil, off)
		p.waitFor(`admin=none`)
		p.signal(syscall.SIGTERM)
		if code, log := p.exit(); code != cli.ExitOK {
			t.Errorf("%s: exit code %d: %s", off, code, log)
		}
	}
}

// One P more than loops, unless the environment says otherwise.
func TestGOMAXPROCS(t *testing.T) {
	for _, tc := range []struct{ env, want string }{
		{"GOMAXPROCS=", `loops=3 gomaxprocs=([4-9]|\d\d+)$`},
		{"GOMAXPROCS=1", `loops=3 gomaxprocs=1$`},
		{"GOMAXPROCS=9", `loops=3 gomaxprocs=9$`},
	} {
		p := start(t, []string{tc.env}, "--loops=3")
		p.waitFor(tc.want)
		p.signal(syscall.SIGTERM)
		p.exit()
	}
}

// The runtime's memory limit is the budget, unless the environment sets it.
func TestMemoryBudget(t *testing.T) {
	for _, tc := range []struct {
		env, flag, limit string
	}{
		{"GOMEMLIMIT=", "--memory-budget=256MiB", "256MiB"},
		{"GOMEMLIMIT=1GiB", "--memory-budget=256MiB", "1GiB"},
	} {
		p := start(t, []string{tc.env}, tc.flag)
		admin := p.waitFor(`admin=([^ ]+).* memory=` + tc.limit + " ")[0]
		if _, body := get(t, admin+"/metrics"); !strings.Contains(body, "\ndistmsg_memory_budget_bytes 1.34217728e+08\n") {
			t.Errorf("%s: the budget of connections is not half of it: %s", tc.flag, body)
		}
		p.signal(syscall.SIGTERM)
		p.exit()
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{"1": 1, "12B": 12, "512MiB": 512 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40,
		"": 0, "0": 0, "-1": 0, "1GB": 0, "x": 0, "9999999TiB": 0, "1.5GiB": 0} {
		var got byteSize
		if err := got.Set(text); (err == nil) != (want > 0) || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
		var again byteSize
		if got > 0 && (again.Set(got.String()) != nil || again != got) {
			t.Errorf("%d is %q, and that is %d", got, got.String(), again)
		}
	}
}

func TestDrain(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		end  func(*process, *conn)
		code int
		line string
	}{
		{"acked", nil, func(_ *process, c *conn) { c.ack() }, cli.ExitOK, "drained: nothing is under way any more"},
		{"timeout", []string{"--drain-timeout=1s"}, func(*process, *conn) {}, cli.ExitCutOff, "1 send"},
		{"second signal", nil, func(p *process, _ *conn) { p.signalUntilExit() }, cli.ExitCutOff, cutBySignal},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := start(t, nil, append([]string{"--drain-timeout=1m"}, tc.args...)...)
			clients, admin := p.addresses()
			c := dial(t, clients)
			c.hello()
			c.sendToItself()
			p.signal(syscall.SIGTERM)
			c.next(codec.KindDrain)
			if code, body := get(t, admin+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
				t.Errorf("/readyz is %d %q while a send waits for its ack, want 503", code, body)
			}
			tc.end(p, c)
			if code, log := p.exit(); code != tc.code || !strings.Contains(log, tc.line) {
				t.Errorf("exit code %d, want %d; log %q, want %q", code, tc.code, log, tc.line)
			}
		})
	}
}

const cutBySignal = "cut off by a second signal"

// signalUntilExit sends a second signal, again and again: the first few may be taken for an echo of
// the first.
func (p *process) signalUntilExit() {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-again.C {
		if p.cmd.Process.Signal(syscall.SIGTERM) != nil || strings.Contains(p.peek(), cutBySignal) {
			return
		}
	}
}

// peek returns a line of the log if there is one.
func (p *process) peek() string {
	select {
	case line := <-p.lines:
		p.log = append(p.log, line)
		return line
	default:
		return ""
	}
}

func TestErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inUse := taken.Addr().String()

	for _, tc := range []struct {
		args []string
		code int
		line string
	}{
		{[]string{"--listen", inUse}, cli.ExitFailure, "--listen " + inUse + ": the address is in use"},
		{[]string{"--admin-listen", inUse}, cli.ExitFailure, "--admin-listen " + inUse + ": the address is in use"},
		{[]string{"--listen", ":0"}, cli.ExitUsage, "add --insecure-listen"},
		{[]string{"--listen", "0.0.0.0:0"}, cli.ExitUsage, "add --insecure-listen"},
		{[]string{"--listen", "[::]:0"}, cli.ExitUsage, "add --insecure-listen"},
		{[]string{"--admin-listen", ":0"}, cli.ExitUsage, "add --insecure-listen"},
		{[]string{"--listen", "nonsense"}, cli.ExitUsage, "not host:port"},
		{[]string{"--listen", "none"}, cli.ExitUsage, "not host:port"},
		{[]string{"--listen", "no-such-host.invalid:1"}, cli.ExitUsage, `names the unknown host "no-such-host.invalid"`},
		{[]string{"--listen", "127.0.0.1:99999"}, cli.ExitUsage, `has the port "99999": want a number from 0 to 65535`},
		{[]string{"--loops", "-1"}, cli.ExitUsage, "Loops"},
		{[]string{"--loops", "many"}, cli.ExitUsage, "--loops"},
		{[]string{"--node-id=" + strings.Repeat("n", codec.MaxID+1)}, cli.ExitUsage, "--node-id has 256 bytes"},
		{[]string{"--drain-timeout", "0s"}, cli.ExitUsage, "--drain-timeout"},
		{[]string{"--log-level", "loud"}, cli.ExitUsage, "--log-level"},
		{[]string{"--log-format", "xml"}, cli.ExitUsage, "--log-format"},
		{[]string{"--nope"}, cli.ExitUsage, "unknown flag: --nope"},
		{[]string{"nope"}, cli.ExitUsage, `unknown command "nope"`},
		{[]string{"serve", "nope"}, cli.ExitUsage, "nope"},
	} {
		t.Run(fmt.Sprintf("%.30s", tc.args), func(t *testing.T) {
			args := append([]string{"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"}, tc.args...)
			code, stdout, stderr := run(t, args...)
			if code != tc.code || stdout != "" {
				t.Errorf("exit code %d, want %d; stdout %q", code, tc.code, stdout)
			}
			if !strings.HasPrefix(stderr, "relay: ") || !strings.Contains(stderr, tc.line) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("stderr is %q, want one line with %q", stderr, tc.line)
			}
		})
	}
}

func TestInsecureListen(t *testing.T) {
	p := start(t, nil, "--listen=:0", "--insecure-listen")
	p.waitFor(`--nodes localhost:\d+`)
	p.signal(syscall.SIGTERM)
	if code, log := p.exit(); code != cli.ExitOK {
		t.Errorf("exit code %d: %s", code, log)
	}
}

func TestHelpAndVersion(t *testing.T) {
	code, help, stderr := run(t, "--help")
	if code != cli.ExitOK || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{
		`relay [flags]`,
		`serve +Run a node until SIGINT or SIGTERM`,
		`--listen address .*\(default "127\.0\.0\.1:7400"\)`,
		`--admin-listen address .*\(default "127\.0\.0\.1:7401"\)`,
		`--insecure-listen `,
		`--loops n .*\(default \d+\)`,
		`--node-id name .*\(default 16 random hex digits\)`,
		`--drain-timeout duration .*\(default 10s\)`,
		`--log-level levels .*\(default "info"\)`,
		`--log-format format .*\(default "text"\)`,
		`--version`,
	} {
		if !regexp.MustCompile(want).MatchString(help) {
			t.Errorf("help has no line that matches %s:\n%s", want, help)
		}
	}
	if code, version, _ := run(t, "--version"); code != cli.ExitOK || !regexp.MustCompile(`^relay version \S+ go1\.\S+\n$`).MatchString(version) {
		t.Errorf("--version: exit code %d, %q", code, version)
	}
}

// conn is a client that speaks the protocol by hand.
type conn struct {
	t     *testing.T
	nc    net.Conn
	in    *bufio.Reader
	token []byte
}

func dial(t *testing.T, addr string) *conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &conn{t: t, nc: nc, in: bufio.NewReader(nc)}
}

func (c *conn) write(frame []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// next skips frames up to one of the kind.
func (c *conn) next(want codec.Kind) []byte {
	c.t.Helper()
	var buf []byte
	for {
		body, n, err := codec.Split(buf, 1<<20)
		if err != nil {
			c.t.Fatal(err)
		}
		if n == 0 {
			b, err := c.in.ReadByte()
			if err != nil {
				c.t.Fatalf("waiting for %v: %v", want, err)
			}
			buf = append(buf, b)
			continue
		}
		kind, err := codec.PeekKind(body)
		if err != nil {
			c.t.Fatal(err)
		}
		if kind == want {
			return body
		}
		buf = buf[n:]
	}
}

// hello returns the node's name.
func (c *conn) hello() string {
	c.t.Helper()
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	var w codec.Welcome
	if err := codec.DecodeWelcome(c.next(codec.KindWelcome), &w); err != nil {
		c.t.Fatal(err)
	}
	return string(w.Node)
}

// sendToItself binds an ID and sends to it with ack; the deliver is here when it returns, the ack
// is not given.
func (c *conn) sendToItself() {
	c.t.Helper()
	id := []byte("a")
	c.write(codec.AppendBind(nil, 1, 0, []codec.IDEpoch{{ID: id}}))
	c.next(codec.KindBound)
	c.write(codec.AppendSend(nil, &codec.Send{Seq: 1, To: id, From: id, TTL: 300_000, Flags: codec.FlagAck}))
	var d codec.Deliver
	if err := codec.DecodeDeliver(c.next(codec.KindDeliver), &d); err != nil {
		c.t.Fatal(err)
	}
	c.token = append([]byte(nil), d.Token...)
}

func (c *conn) ack() {
	c.t.Helper()
	c.write(codec.AppendAck(nil, &codec.Ack{Token: c.token, Code: codec.CodeAcked}))
	c.next(codec.KindOutcome)
}
