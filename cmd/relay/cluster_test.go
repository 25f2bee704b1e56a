package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/internal/cli"
	"distmsg/internal/proc"
)

const testSecret = envSecret + "=the secret of the test's cluster"

func startRedis(t *testing.T, options proc.RedisOptions) *proc.Redis {
	t.Helper()
	server, err := proc.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

func startZooKeeper(t *testing.T) *proc.ZooKeeper {
	t.Helper()
	server, err := proc.StartZooKeeper(t.Context(), proc.ZooKeeperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// writeFile writes a secret that only we can read.
func writeFile(t *testing.T, text string) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// eventually waits until ok, and fails with what is asked for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

func contains(t *testing.T, url, want string) func() bool {
	return func() bool {
		_, body := get(t, url)
		return strings.Contains("\n"+body, want)
	}
}

// session opens one at a node; it answers with its name.
func session(t *testing.T, addr, id string) *client.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := client.Dial(ctx, client.Config{
		Nodes:   []string{addr},
		Handler: func(_ context.Context, d *client.Delivery) { d.Reply([]byte("I am " + id)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	if err := s.Bind(ctx, id); err != nil {
		t.Fatal(err)
	}
	return s
}

func expectReply(t *testing.T, s *client.Session, from, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := s.Send(ctx, client.Message{From: from, To: to})
	if err != nil || string(reply.Payload) != "I am "+to {
		t.Errorf("%s to %s: %q, %v", from, to, reply.Payload, err)
	}
}

// Two nodes that find each other through ZooKeeper and share a Redis with a password: sessions on
// the two reach each other, health names what is away, and SIGTERM takes a node out.
func TestCluster(t *testing.T) {
	redis, zk := startRedis(t, proc.RedisOptions{Password: "sesame", Persist: true}), startZooKeeper(t)
	secret, password, auth := writeFile(t, "0123456789abcdef\n"), writeFile(t, "sesame\n"), writeFile(t, "relay:sesame")
	node := func(id string) (*process, string, string) {
		p := start(t, nil, "--node-id="+id, "--peer-listen=127.0.0.1:0", "--registry="+redis.URL(), "--registry-password-file="+password,
			"--discovery=zk://"+zk.Addr+"/test", "--discovery-auth-file="+auth, "--cluster-secret-file="+secret)
		addr, admin := p.addresses()
		return p, addr, admin
	}
	_, addr0, admin0 := node("n0")
	p1, addr1, admin1 := node("n1")
	for _, admin := range []string{admin0, admin1} {
		eventually(t, "linked", contains(t, admin+"/metrics", "\ndistmsg_links 1\n"))
		eventually(t, "well", contains(t, admin+"/healthz", "\nok\n"))
	}
	alice, bob := session(t, addr0, "alice"), session(t, addr1, "bob")
	expectReply(t, alice, "alice", "bob")
	expectReply(t, bob, "bob", "alice")

	zk.Kill()
	eventually(t, "ZooKeeper is missed", contains(t, admin0+"/healthz", "the list of nodes may be out of date: zookeeper: no session with "+zk.Addr))
	redis.Kill()
	eventually(t, "Redis is missed", contains(t, admin0+"/healthz", redis.URL()))
	eventually(t, "both are counted", contains(t, admin0+"/metrics", "\ndistmsg_degraded 2\n"))
	if code, body := get(t, admin0+"/readyz"); code != http.StatusOK {
		t.Errorf("/readyz is %d %q while Redis and ZooKeeper are away, want 200", code, body)
	}
	expectReply(t, alice, "alice", "bob")
	for _, server := range []interface{ Restart(context.Context) error }{zk, redis} {
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "nothing is missed", contains(t, admin0+"/healthz", "\nok\n"))

	p1.signal(syscall.SIGTERM)
	if code, log := p1.exit(); code != cli.ExitOK {
		t.Errorf("exit code %d after SIGTERM: %s", code, log)
	}
	eventually(t, "n1 is listed no longer", contains(t, admin0+"/healthz", "\nok\n"))
	expectReply(t, alice, "alice", "bob") // who has moved
}

// Two nodes that were told of each other. The lower ID dials, so that the other one's entry for it
// is never used.
func TestPeers(t *testing.T) {
	redis := startRedis(t, proc.RedisOptions{})
	node := func(id, peers string) *proc.Relay {
		relay, err := proc.StartRelay(t.Context(), proc.RelayOptions{
			Flags: []string{"--node-id", id, "--peers", peers, "--peer-listen", "{peer-addr}", "--registry", redis.URL()},
			Env:   []string{testSecret},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(relay.Close)
		return relay
	}
	n1 := node("n1", "n0=127.0.0.1:1/127.0.0.1:2")
	// a list that is good for all nodes
	n0 := node("n0", "n0={addr}/{peer-addr},n1="+n1.Addr+"/"+n1.PeerAddr)
	alice, _ := session(t, n0.Addr, "alice"), session(t, n1.Addr, "bob")
	expectReply(t, alice, "alice", "bob")
	if links, err := n0.Metric(t.Context(), "distmsg_links"); err != nil || links != 1 {
		t.Errorf("%v links, %v", links, err)
	}
}

// Both nodes say that they do not share the secret, and continue without a link.
func TestWrongClusterSecret(t *testing.T) {
	redis, zk := startRedis(t, proc.RedisOptions{}), startZooKeeper(t)
	var nodes []*process
	for i, secret := range []string{"one secret of a cluster", "another secret of a cluster"} {
		nodes = append(nodes, start(t, []string{envSecret + "=" + secret}, fmt.Sprintf("--node-id=n%d", i), "--peer-listen=127.0.0.1:0",
			// The registry would refuse the second of them: it is not what is tested here.
			fmt.Sprintf("--registry=%s/%d", redis.URL(), i), "--discovery=zk://"+zk.Addr))
	}
	for i, p := range nodes {
		_, admin := p.addresses()
		p.waitFor(fmt.Sprintf(`level=WARN.*(does not know the cluster's secret.*node=n%d|the proof does not match the cluster's secret)`, 1-i))
		eventually(t, "no link", contains(t, admin+"/healthz", fmt.Sprintf("no link to node \"n%d\"", 1-i)))
	}
}

// The second of two nodes with one ID ends, and says why.
func TestTwoNodesWithOneID(t *testing.T) {
	redis, zk := startRedis(t, proc.RedisOptions{}), startZooKeeper(t)
	args := []string{"--node-id=n0", "--peer-listen=127.0.0.1:0", "--registry=" + redis.URL(), "--discovery=zk://" + zk.Addr}
	first := start(t, []string{testSecret}, args...)
	first.addresses()
	second := start(t, []string{testSecret}, args...)
	code, log := second.exit()
	if code != cli.ExitFailure || !strings.Contains(log, `relay: engine: a node called "n0" already runs at `) {
		t.Errorf("exit code %d: %s", code, log)
	}
	first.signal(syscall.SIGTERM)
	if code, log := first.exit(); code != cli.ExitOK {
		t.Errorf("the first one: exit code %d: %s", code, log)
	}
}

// A node with another secret is kept off the registry of a cluster.
func TestRegistryOfAnotherCluster(t *testing.T) {
	redis := startRedis(t, proc.RedisOptions{})
	start(t, []string{envSecret + "=one secret of a cluster"}, "--registry="+redis.URL()).addresses()
	other := []string{envSecret + "=another secret of a cluster"}
	code, log := start(t, other, "--registry="+redis.URL()).exit()
	if code != cli.ExitFailure || !strings.Contains(log, `the prefix "distmsg" is used by another cluster`) {
		t.Errorf("exit code %d: %s", code, log)
	}
	start(t, other, "--registry="+redis.URL(), "--cluster=other").addresses()
}

// One node with a registry that outlives it: no cluster, no secret.
func TestRegistryWithoutCluster(t *testing.T) {
	redis := startRedis(t, proc.RedisOptions{})
	p := start(t, nil, "--registry="+redis.URL())
	addr, _ := p.addresses()
	expectReply(t, session(t, addr, "alice"), "alice", "alice")
	if n, err := redis.Do(t.Context(), "DBSIZE"); err != nil || n == "0" {
		t.Errorf("Redis holds %s keys, %v", n, err)
	}
	p.signal(syscall.SIGTERM)
	if code, log := p.exit(); code != cli.ExitOK {
		t.Errorf("exit code %d: %s", code, log)
	}
}

func TestReadableSecret(t *testing.T) {
	file := writeFile(t, "0123456789abcdef")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "--cluster-secret-file="+file)
	p.waitFor(`level=WARN.*everybody on this machine can read.*flag=--cluster-secret-file`)
	p.addresses()
}

// Servers that refuse, are not there, or are not what they should be.
func TestServersThatWillNotDo(t *testing.T) {
	locked, open, zk := startRedis(t, proc.RedisOptions{Password: "sesame"}), startRedis(t, proc.RedisOptions{}), startZooKeeper(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := closed.Addr().String()
	closed.Close()
	for _, tc := range []struct {
		name string
		env  []string
		args []string
		line string
	}{
		{"no password", nil, []string{"--registry=" + locked.URL()}, "it requires a password"},
		{"wrong password", []string{envRegistryPassword + "=other"}, []string{"--registry=" + locked.URL()}, "wrong user name or password"},
		{"no Redis", nil, []string{"--registry=redis://" + nowhere}, "--registry: redis://" + nowhere + ": it cannot be reached: is it running"},
		{"TLS expected", nil, []string{"--registry=rediss://" + open.Addr}, "without TLS although the URL says rediss"},
		{"no ZooKeeper", []string{testSecret}, []string{"--registry=" + open.URL(), "--discovery=zk://" + nowhere},
			"--discovery: zookeeper: no session with " + nowhere},
		{"Redis for ZooKeeper", []string{testSecret}, []string{"--registry=" + open.URL(), "--discovery=zk://" + open.Addr},
			"--discovery: zookeeper: no session with " + open.Addr},
		{"ZooKeeper for Redis", nil, []string{"--registry=redis://" + zk.Addr}, "--registry: redis://" + zk.Addr},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, log := start(t, tc.env, tc.args...).exit()
			last := log[strings.LastIndex(log, "\n")+1:] // before it, the log may warn
			if code != cli.ExitFailure || !strings.HasPrefix(last, "relay: ") || !strings.Contains(last, tc.line) {
				t.Errorf("exit code %d, %q; want %q in the last line", code, log, tc.line)
			}
			if strings.Contains(log, "other") || strings.Contains(log, "sesame") {
				t.Errorf("it tells a password: %s", log)
			}
		})
	}
}

// What cannot be is refused before anything is connected, with what to do.
func TestClusterRefusals(t *testing.T) {
	const redis, zk = "--registry=redis://localhost:1", "--discovery=zk://localhost:1"
	long := strings.Repeat("n", 300)
	short := writeFile(t, "fifteen bytes..\n")
	empty := writeFile(t, "\n")
	for _, tc := range []struct {
		args []string
		line string
	}{
		{[]string{zk}, "--discovery needs a registry that all nodes share: add --registry redis://"},
		{[]string{"--peers=a=h:1/h:2", "--node-id=b"}, "--peers needs a registry that all nodes share"},
		{[]string{redis, zk, "--peers=a=h:1/h:2"}, "--discovery and --peers exclude each other"},
		{[]string{redis, "--peers=a=h:1/h:2"}, "--peers needs --node-id"},
		{[]string{redis, "--node-id=b", "--peers=a"}, `--peers: "a" is not ID=ADDRESS/PEER-ADDRESS`},
		{[]string{redis, "--node-id=b", "--peers=a=h:1/h:2,"}, `--peers: "" is not ID=`},
		{[]string{redis, "--node-id=b", "--peers=a=h:1"}, `--peers: "a=h:1" is not ID=`},
		{[]string{redis, "--node-id=b", "--peers==h:1/h:2"}, `--peers: "=h:1/h:2" is not ID=`},
		{[]string{redis, "--node-id=b", "--peers=a=h:1/h:2,a=i:1/i:2"}, `--peers names "a" twice`},
		{[]string{redis, "--node-id=b", "--peers=a=h:1/h:2, a=i:1/i:2"}, `--peers names "a" twice`},
		{[]string{redis, "--node-id=b", "--peers=a=h/h:2"}, `the address for clients, "h", is not HOST:PORT`},
		{[]string{redis, "--node-id=b", "--peers=a=h:1/h:x"}, `the address for nodes, "h:x", has no port from 1 to 65535`},
		{[]string{redis, "--node-id=b", "--peers=a=h:1/0.0.0.0:2"}, `the address for nodes, "0.0.0.0:2", names no host`},
		{[]string{redis, zk}, "a cluster needs a secret: put at least 16 random bytes into a file and add --cluster-secret-file"},
		{[]string{redis, zk, "--cluster-secret-file=" + short}, "the cluster's secret has 15 bytes, at least 16 are needed"},
		{[]string{redis, zk, "--cluster-secret-file=" + empty}, "--cluster-secret-file " + empty + " is empty"},
		{[]string{redis, zk, "--cluster-secret-file=/nowhere"}, "--cluster-secret-file cannot be read: open /nowhere"},
		{[]string{redis, "--registry-password-file=/nowhere"}, "--registry-password-file cannot be read: open /nowhere"},
		{[]string{"--registry=redis://:hidden@localhost"}, "--registry contains a user or a password"},
		{[]string{redis, "--discovery=zk://user:hidden@localhost"}, "--discovery contains a user or a password"},
		{[]string{"--registry=localhost"}, "the URL must begin with redis://"},
		{[]string{"--registry="}, "--registry is empty"},
		{[]string{redis, "--registry-buckets=-1"}, "-1 buckets"},
		{[]string{redis, "--cluster={}"}, `--cluster "{}": want a name`},
		{[]string{"--cluster=a b"}, `--cluster "a b": want a name`},
		{[]string{"--cluster=" + strings.Repeat("c", 256)}, "want a name of up to 255 bytes"},
		{[]string{"--cluster="}, "--cluster is empty"},
		{[]string{"--node-id="}, "--node-id is empty"},
		{[]string{"--peers="}, "--peers is empty"},
		{[]string{"--loops=0"}, "--loops is 0: give it a value"},
		{[]string{redis, "--registry-ca-file=/nowhere"}, "--registry-ca-file works only with TLS: begin --registry with rediss"},
		{[]string{"--registry=rediss://h", "--registry-ca-file=/nowhere"}, "the CA file: open /nowhere"},
		{[]string{"--registry=rediss://h", "--registry-key-file=/nowhere"}, "--registry-cert-file and --registry-key-file go together"},
		{[]string{"--registry-username=u"}, "--registry-username works only with Redis: add --registry redis://"},
		{[]string{redis, "--discovery-auth-file=f"}, "--discovery-auth-file works only with ZooKeeper: add --discovery zk://"},
		{[]string{redis, "--discovery=dns://localhost:1", "--discovery-auth-file=f"}, "--discovery-auth-file works only with ZooKeeper"},
		{[]string{"--log-level=info,links=loud"}, `--log-level "loud" is not debug, info, warn or error`},
		{[]string{"--log-level=info,link=debug"}, `--log-level there is no component "link": they are auth, clients,`},
		{[]string{"--peer-listen=127.0.0.1:0"}, "--peer-listen works only in a cluster: add --discovery or --peers"},
		{[]string{"--peer-advertise=h:1"}, "--peer-advertise works only in a cluster"},
		{[]string{"--advertise=h"}, `--advertise "h" is not HOST:PORT`},
		{[]string{"--advertise=" + long + ":7400"}, "has 305 bytes, at most 255 are allowed"},
		{[]string{"--advertise=h\x01:7400"}, `--advertise "h\x01:7400" contains a character that no address has`},
		{[]string{"--node-id=" + long}, "--node-id has 300 bytes, at most 255 are allowed: give this node a name of 1 to 255 bytes"},
		{[]string{"--node-id=a\xff"}, `--node-id is "a\xff", which is not UTF-8`},
		{[]string{"--node-id=a\nb"}, `--node-id is "a\nb", which contains the control character U+000A`},
		{[]string{redis, zk, "--peer-advertise=" + long + ":7402"}, "has 305 bytes, at most 255 are allowed"},
		{[]string{redis, zk, "--peer-advertise=h\xff:7402"}, `--peer-advertise "h\xff:7402" contains a character that no address has`},
		{[]string{redis, "--node-id=b", "--peers=" + long + "=h:1/h:2"}, "--peers: the name of a node has 300 bytes, at most 255 are allowed"},
		{[]string{redis, "--node-id=b", "--peers=a=h:1/" + long + ":2"}, "has 302 bytes, at most 255 are allowed"},
		{[]string{"--advertise=:7400"}, `--advertise ":7400" names no host`},
		{[]string{redis, zk, "--peer-listen=nonsense"}, `--peer-listen "nonsense" is not host:port`},
		{[]string{redis, zk, "--listen=:0", "--insecure-listen"}, "add --advertise HOST:PORT"},
		{[]string{redis, zk, "--peer-listen=0.0.0.0:0"}, "add --peer-advertise HOST:PORT"},
		{[]string{redis, zk, "--listen=:0", "--advertise=h:1"}, "add --insecure-listen"},
		{[]string{"--resume-window=0s"}, "--resume-window is 0s: give it a value"},
		{[]string{"--verify-period=999ms"}, "--verify-period 999ms must be at least 1s"},
	} {
		t.Run(fmt.Sprintf("%.60s", strings.Join(tc.args, " ")), func(t *testing.T) {
			args := append([]string{"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"}, tc.args...)
			code, _, stderr := run(t, args...)
			if code != cli.ExitUsage || !strings.HasPrefix(stderr, "relay: ") || !strings.Contains(stderr, tc.line) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, stderr %q, want %d and one line with %q", code, stderr, cli.ExitUsage, tc.line)
			}
			if strings.Contains(stderr, "hidden") {
				t.Errorf("it tells a password: %s", stderr)
			}
		})
	}
}

func TestMalformedDiscovery(t *testing.T) {
	redis := startRedis(t, proc.RedisOptions{})
	p := start(t, []string{testSecret}, "--registry="+redis.URL(), "--discovery=localhost")
	if code, log := p.exit(); code != cli.ExitUsage || !strings.Contains(log, "--discovery: zookeeper: \"localhost\" does not look like zk://") {
		t.Errorf("exit code %d: %s", code, log)
	}
}

// An address that is taken is named with the flag that chooses it.
func TestPeerAddressInUse(t *testing.T) {
	redis := startRedis(t, proc.RedisOptions{})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := start(t, []string{testSecret}, "--registry="+redis.URL(), "--node-id=a", "--peers=b=h:1/h:2", "--peer-listen="+taken.Addr().String())
	if code, log := p.exit(); code != cli.ExitFailure || !strings.Contains(log, "--peer-listen "+taken.Addr().String()+": the address is in use") {
		t.Errorf("exit code %d: %s", code, log)
	}
}
