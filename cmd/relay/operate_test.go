package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/engine"
	"distmsg/internal/certs/certstest"
	"distmsg/internal/cli"
	"distmsg/internal/proc"
)

// operator runs relay's commands against one node.
type operator struct {
	t     *testing.T
	admin string // URL
}

// run runs a command in this process.
func (o *operator) run(args ...string) (code int, stdout, stderr string) {
	o.t.Helper()
	o.t.Setenv("DISTMSG_ADMIN", o.admin)
	root := newCommand()
	var out, errOut strings.Builder
	root.SetOut(&out)
	code = cli.Execute(root, args, &errOut)
	return code, out.String(), errOut.String()
}

// expect runs a command that has to succeed, and whose output has to match all patterns.
func (o *operator) expect(command string, patterns ...string) string {
	o.t.Helper()
	code, stdout, stderr := o.run(strings.Fields(command)...)
	if code != cli.ExitOK || stderr != "" {
		o.t.Errorf("relay %s: exit code %d, %q; its output:\n%s", command, code, stderr, stdout)
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(stdout) {
			o.t.Errorf("relay %s: no line matches %s in:\n%s", command, pattern, stdout)
		}
	}
	return stdout
}

// eventually runs a command until its output matches the pattern.
func (o *operator) eventually(command, pattern string) {
	o.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	last := ""
	defer func() {
		if o.t.Failed() {
			o.t.Logf("relay %s printed last:\n%s", command, last)
		}
	}()
	eventually(o.t, "relay "+command+" prints "+pattern, func() bool {
		_, last, _ = o.run(strings.Fields(command)...)
		return re.MatchString(last)
	})
}

// traffic sends from bob to alice, one message at a time, until the test ends.
func traffic(t *testing.T, from *client.Session) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = from.Send(ctx, client.Message{From: "bob", To: "carol", Payload: []byte("hello")})
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// Operators ask any node of a cluster about all of it while messages flow, and give orders.
func TestOperate(t *testing.T) {
	redis, zk := startRedis(t, proc.RedisOptions{}), startZooKeeper(t)
	var addrs, admins []string
	var nodes []*process
	for _, id := range []string{"n1", "n2", "n3"} {
		p := start(t, []string{testSecret}, "--node-id="+id, "--peer-listen=127.0.0.1:0", "--registry="+redis.URL(),
			"--discovery=zk://"+zk.Addr+"/test", "--loops=1")
		addr, admin := p.addresses()
		nodes, addrs, admins = append(nodes, p), append(addrs, addr), append(admins, admin)
	}
	o := &operator{t, admins[0]}
	o.eventually("nodes", `^n1 +ready .*2 of 2 (.*\n)+n2 +ready .*2 of 2 (.*\n)+n3 +ready .*2 of 2 `)
	alice, bob, carol := session(t, addrs[0], "alice"), session(t, addrs[1], "bob"), session(t, addrs[2], "carol")
	traffic(t, bob)
	t.Run("ask", o.asks)
	if *recordCommands {
		loadFrom12(t, addrs)
		o.eventually("where nobody", "not bound")
	} else { // the document is about sessions that have not moved
		t.Run("orders", o.orders)
		if err := carol.Bind(t.Context(), "carol"); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("document", func(t *testing.T) {
		o.document(t, map[string]*client.Session{"alice": alice, "bob": bob, "carol": carol}, func() {
			nodes[2].signal(syscall.SIGKILL)
			nodes[2].exit()
		})
	})
	t.Run("a node is gone", func(t *testing.T) {
		o := &operator{t, o.admin}
		code, stdout, stderr := o.run("nodes")
		if code != cli.ExitIncomplete || !strings.Contains(stdout, "\nno answer from n3: ") || !strings.Contains(stderr, "1 node has not answered") {
			t.Errorf("exit code %d, %q:\n%s", code, stderr, stdout)
		}
	})
}

func (o *operator) asks(t *testing.T) {
	o = &operator{t, o.admin}
	var nodes engine.Asked[engine.NodeInfo]
	if err := json.Unmarshal([]byte(o.expect("nodes --json")), &nodes); err != nil || len(nodes.Answers) != 3 {
		t.Errorf("%+v, %v", nodes, err)
	}
	o.expect("sessions", `^SESSION +IDENTITY +NODE`, ` n1 +127\.0\.0\.1:\d+ +1 `, ` n2 +127`, ` n3 +127`)
	o.expect("sessions --slowest=1", ` n1 +127\.0\.0\.1:\d+ +1 `)
	if out := o.expect("sessions --identity=nobody"); strings.Count(out, "\n") != 1 {
		t.Errorf("sessions of an identity that nobody has:\n%s", out)
	}
	o.expect("conns", `^CONN +NODE +LOOP +STATE`, ` n1 +0 +open .*127\.0\.0\.1:\d+`, ` n3 +0 +open `)
	o.expect("links", `^n1 +n2 +up `, `^n3 +n2 +up `)
	o.expect("where carol nobody", `^carol +registry +bound .* n3 `, `^carol +n3 +has it .* n3 `, `^nobody +registry +(not bound|unknown) `)
	var where struct{ Answers []engine.WhereInfo }
	if err := json.Unmarshal([]byte(o.expect("where --json carol")), &where); err != nil || len(where.Answers) != 1 {
		t.Fatalf("%+v, %v", where, err)
	}
	o.expect("ids "+where.Answers[0].Session, `^carol +n3 +\d+ +`+regexp.QuoteMeta(where.Answers[0].Session))
	o.expect("trace bob carol", `^bob -> carol: acked after `, ` n3 `)
	// A new Redis may have lost data, so for ten seconds nobody knows that an ID is not bound.
	o.expect("trace bob nobody", `^bob -> nobody: (no_route|registry_unavailable) after `)
	o.expect("top --count=1 --every=100ms", `^NODE +STATE .*SENDS/S`, `^n2 +ready `, `^SESSION `)
	o.expect("top --count=1 --every=100ms --json", `^\{"at":`)
	if code, _, stderr := o.run("ids", "nobody"); code != cli.ExitFailure || !strings.Contains(stderr, "not the ID of a session") {
		t.Errorf("ids of nobody: exit code %d, %q", code, stderr)
	}
	if code, stdout, _ := o.run("__complete", "drain", ""); code != cli.ExitOK || !strings.Contains(stdout, "n1\nn2\nn3\n") {
		t.Errorf("completion of drain: exit code %d, %q", code, stdout)
	}
}

// A node without others: who watches an ID sees that it is kicked.
func TestOperateAlone(t *testing.T) {
	p := start(t, nil, "--loops=1")
	addr, admin := p.addresses()
	o := &operator{t, admin}
	session(t, addr, "alice")
	o.expect("nodes", `^\S+ +ready `)
	o.expect("where alice nobody", `^alice +registry +bound `, `^nobody +registry +not bound `)
	o.expect("trace alice nobody", `^alice -> nobody: no_route after `)
	o.expect("trace alice alice", `^alice -> alice: acked after `)

	watch := command(t, []string{"DISTMSG_ADMIN=" + o.admin}, "watch", "alice")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(patience, func() { watch.Process.Kill() }).Stop()
	lines := bufio.NewScanner(out)
	expect := func(pattern string) {
		t.Helper()
		for re := regexp.MustCompile(pattern); lines.Scan(); t.Log(lines.Text()) {
			if re.MatchString(lines.Text()) {
				return
			}
		}
		t.Fatalf("relay watch ended before a line matched %s: %v", pattern, lines.Err())
	}
	expect(`alice  bound  session .* at .*, epoch \d+`)
	o.expect("kick alice", `^alice is kicked$`)
	expect(`alice  not bound`)
	if err := watch.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, watch.Wait()); code != cli.ExitOK {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	if code, _, stderr := o.run("kick", "nobody"); code != cli.ExitFailure || stderr == "" {
		t.Errorf("kick of nobody: exit code %d, %q", code, stderr)
	}
}

func (o *operator) orders(t *testing.T) {
	o = &operator{t, o.admin}
	o.expect("kick carol", `^carol is kicked$`) // she is bound at another node
	o.expect("drain n2", `^node n2 drains`)
	o.eventually("nodes", `^n2 +draining `)
	o.expect("undrain n2", `^node n2 takes clients`)
	o.eventually("nodes", `^n2 +ready `)
	o.expect("rebalance n3 --share=1 --over=0s", `^node n3 asks \d+ sessions to move`)
	o.expect("log-level", `^n1 +info$`, `^n3 +info$`)
	o.expect("log-level warn,links=debug --node=n3", `^node n3 logs warn,links=debug$`)
	o.expect("log-level debug", `^the node at http:.* logs debug$`)
	o.expect("log-level", `^n1 +debug$`, `^n2 +info$`, `^n3 +warn,links=debug$`)
	if code, _, stderr := o.run("drain", "n9"); code != cli.ExitFailure || !strings.Contains(stderr, "n9") {
		t.Errorf("drain of a node that is not there: exit code %d, %q", code, stderr)
	}
}

// What is wrong with a question is said in one line, with what to do.
func TestOperateErrors(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "operators")
	code, token, _ := run(t, "token", "add", "ops", "--auth-token-file="+tokens)
	if code != cli.ExitOK {
		t.Fatalf("relay token add: exit code %d", code)
	}
	_, dashboard, _ := run(t, "token", "add", "dashboard", "--no-orders", "--auth-token-file="+tokens)
	if _, list, _ := run(t, "token", "list", "--auth-token-file="+tokens); strings.Count(list, " orders ") != 1 {
		t.Errorf("the list of tokens:\n%s", list)
	}
	p := start(t, nil, "--admin-listen=0.0.0.0:0", "--insecure-listen", "--admin-token-file="+tokens)
	p.waitFor("operators send their tokens in plaintext")
	_, admin := p.addresses()
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	admin = "http://127.0.0.1:" + u.Port()
	t.Setenv("DISTMSG_ADMIN_TOKEN", "")
	for _, tc := range []struct {
		admin, args, token string
		code               int
		want               string
	}{
		{admin, "nodes", "", cli.ExitFailure, "this needs credentials: send Authorization: Bearer"},
		{admin, "nodes", "dmt_wrong", cli.ExitFailure, "the token is unknown, wrong or removed"},
		{admin, "nodes", strings.TrimSpace(token), cli.ExitOK, ""},
		{admin, "nodes", strings.TrimSpace(dashboard), cli.ExitOK, ""},
		{admin, "drain", strings.TrimSpace(dashboard), cli.ExitFailure, "dashboard lacks the right orders: it may only ask"},
		{admin, "log-level debug", strings.TrimSpace(token), cli.ExitOK, ""},
		{"http://127.0.0.1:1", "nodes", "", cli.ExitFailure, "no node listens at --admin http://127.0.0.1:1"},
		{"ftp://n1", "nodes", "", cli.ExitUsage, `--admin "ftp://n1" is not the URL of an admin port`},
		{admin, "nodes --tls-ca=f", "", cli.ExitUsage, "need an --admin that begins with https://"},
		{admin, "nodes --token-file=/nowhere", "", cli.ExitUsage, "--token-file cannot be read"},
		{admin, "nodes --timeout=9s", strings.TrimSpace(token), cli.ExitFailure, "up to 8s"},
		{admin, "rebalance n1 --share=2", "", cli.ExitUsage, "--share 2 must be 0 to 1"},
		{admin, "log-level loud", "", cli.ExitUsage, `LEVELS: "loud" is not debug, info, warn or error`},
		{admin, "where", "", cli.ExitUsage, "requires at least 1 arg"},
	} {
		t.Setenv("DISTMSG_ADMIN_TOKEN", tc.token)
		o := &operator{t, tc.admin}
		code, _, stderr := o.run(strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") > 1 {
			t.Errorf("relay %s: exit code %d, want %d; %q, want one line with %q", tc.args, code, tc.code, stderr, tc.want)
		}
	}
}

// An address that other machines reach has no API as long as nobody has to show credentials.
func TestAdminClosed(t *testing.T) {
	p := start(t, nil, "--admin-listen=0.0.0.0:0", "--insecure-listen")
	p.waitFor("nobody may use the admin API at this address.*--admin-token-file")
	_, admin := p.addresses()
	if code, body := get(t, strings.Replace(admin, "[::]", "127.0.0.1", 1)+"/api/v1/nodes"); code != 403 || !strings.Contains(body, "this API is closed") {
		t.Errorf("%d %s", code, body)
	}
}

// With TLS, operators show certificates. The probes ask for none.
func TestAdminTLS(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "operators")
	caFile := ca.Write(t, dir)
	server := ca.Issue(t, certstest.Request{}).Write(t, dir, "server")
	ops := ca.Issue(t, certstest.Request{CommonName: "ops"}).Write(t, dir, "ops")
	shows := " --tls-cert=" + ops.CertFile + " --tls-key=" + ops.KeyFile
	flags := []string{
		"--admin-tls-cert=" + server.CertFile, "--admin-tls-key=" + server.KeyFile, "--admin-tls-client-ca=" + caFile, "--admin-tls-orders-from=root,deploy-*",
	}
	_, admin := start(t, nil, flags...).addresses()
	o := &operator{t, admin}
	o.expect("nodes --tls-ca="+caFile+shows, `^\S+ +ready `)
	deploy := ca.Issue(t, certstest.Request{CommonName: "deploy-3"}).Write(t, dir, "deploy")
	o.expect("log-level debug --tls-ca="+caFile+" --tls-cert="+deploy.CertFile+" --tls-key="+deploy.KeyFile, " logs debug$")
	if code, _, stderr := o.run(strings.Fields("log-level debug --tls-ca=" + caFile + shows)...); code != cli.ExitFailure || !strings.Contains(stderr, "CN=ops lacks the right orders") {
		t.Errorf("an order of ops: exit code %d, %q", code, stderr)
	}
	for args, want := range map[string]string{
		"--tls-ca=" + caFile: "this needs credentials: show a client certificate",
		"":                   "certificate signed by unknown authority",
	} {
		if code, _, stderr := o.run(append([]string{"nodes"}, strings.Fields(args)...)...); code != cli.ExitFailure || !strings.Contains(stderr, want) {
			t.Errorf("relay nodes %s: exit code %d, %q, want %q", args, code, stderr, want)
		}
	}
	healthcheck := append([]string{"healthcheck", "--admin-listen=" + strings.TrimPrefix(admin, "https://")}, flags...)
	if code, stdout, stderr := o.run(healthcheck...); code != cli.ExitOK || stdout != "ok\n" {
		t.Errorf("relay healthcheck: exit code %d, %q, %q", code, stdout, stderr)
	}
}

func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	if code, _, stderr := run(t, "man", dir); code != cli.ExitOK {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	for _, page := range []string{"relay.1", "relay-serve.1", "relay-where.1", "relay-token-add.1"} {
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !strings.HasPrefix(string(text), ".nh\n.TH \"RELAY\"") {
			t.Errorf("%s: %.40q, %v", page, text, err)
		}
	}
}
