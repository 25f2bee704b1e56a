package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"distmsg/discovery/zookeeper"
	"distmsg/engine"
	"distmsg/internal/proc"
	"distmsg/loadtest"
	"distmsg/routing"
)

// startZKNode runs a node that registers in ZooKeeper, until the test ends.
func startZKNode(t *testing.T, url, auth, id string, registry routing.Registry) *engine.Engine {
	t.Helper()
	m, err := zookeeper.Open(t.Context(), zookeeper.Config{URL: url, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return startNode(t, id, m, registry)
}

// startNode runs a node until the test ends.
func startNode(t *testing.T, id string, m engine.Membership, registry routing.Registry) *engine.Engine {
	t.Helper()
	e, err := engine.New(engine.Config{NodeID: id, Addr: "127.0.0.1:0", PeerAddr: "127.0.0.1:0", Loops: 1, Registry: registry,
		Membership: m, Secret: []byte("signs all resume secrets"), ClusterSecret: []byte("known to all the nodes")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-e.Ready()
	return e
}

// TestDiscovery finds two nodes in a real ZooKeeper, and says in one line what is wrong where it
// cannot.
func TestDiscovery(t *testing.T) {
	z, err := proc.StartZooKeeper(t.Context(), proc.ZooKeeperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	const auth = "someone:secret"
	url := "zk://" + z.Addr + "/lt"
	file, out := filepath.Join(t.TempDir(), "auth"), filepath.Join(t.TempDir(), "out.json")
	if err := os.WriteFile(file, []byte(auth+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty, err := zookeeper.Open(t.Context(), zookeeper.Config{URL: url + "-empty"})
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	registry := routing.NewMemory(routing.MemoryConfig{})
	nodes := []*engine.Engine{startZKNode(t, url, auth, "a", registry), startZKNode(t, url, auth, "b", registry)}
	look, err := zookeeper.Open(t.Context(), zookeeper.Config{URL: url, Auth: auth, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	ready := func() bool {
		all, _ := look.Nodes()
		return len(all) == 2 && nodes[0].Stats().Links == 1 && nodes[1].Stats().Links == 1
	}
	for deadline := time.After(30 * time.Second); !ready(); {
		select {
		case <-deadline:
			t.Fatal("the nodes do not find each other")
		case <-time.After(10 * time.Millisecond):
		}
	}

	const short = " --conns 8 --window 4 --warmup 0 --duration 1s"
	for _, c := range []struct {
		args, env string
		want      loadtest.ExitCode
		says      string
	}{
		{"--discovery " + url + " --discovery-auth-file " + file + " --cross 1 --json " + out + short, "", loadtest.ExitOK, ""},
		{"--discovery " + url + " --driver sdk" + short, auth, loadtest.ExitOK, ""},
		{"--discovery " + url + short, "", loadtest.ExitFailure, "zookeeper:"},
		{"--discovery " + url + "-empty" + short, "", loadtest.ExitFailure, "no node"},
		{"--discovery " + url + "-missing" + short, "", loadtest.ExitFailure, "zookeeper:"},
	} {
		t.Setenv(authVariable, c.env)
		var stdout, stderr bytes.Buffer
		if got := run(strings.Fields(c.args), &stdout, &stderr); got != c.want {
			t.Errorf("loadtest %s: exit code %d, want %d\n%s", c.args, got, c.want, &stderr)
		}
		if line := stderr.String(); c.want != loadtest.ExitOK && (strings.Count(line, "\n") != 1 || !strings.Contains(line, c.says)) {
			t.Errorf("loadtest %s says %q", c.args, line)
		}
		t.Log(fmt.Sprint(&stderr))
	}
	var report loadtest.Report
	if data, err := os.ReadFile(out); err != nil || json.Unmarshal(data, &report) != nil || report.Cross == nil || *report.Cross != 1 {
		t.Errorf("%v: the report of --cross 1: %+v", err, report)
	}
}

// TestDiscoveryByDNS: DNS names the ports for clients, and the load goes to these nodes, with the
// node's own protocol and through the SDK.
func TestDiscoveryByDNS(t *testing.T) {
	server, err := proc.StartDNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	node := startNode(t, "a", nil, nil)
	port := uint16(node.Addr().(*net.TCPAddr).Port)
	server.Set(proc.Zone{
		Hosts:    map[string][]netip.Addr{"relay.test.": {netip.MustParseAddr("127.0.0.1")}, "nobody.test.": {}},
		Services: map[string][]proc.Service{"_relay._tcp.test.": {{Host: "relay.test.", Port: port}}},
	})
	const short = " --conns 4 --warmup 0 --duration 200ms"
	for _, c := range []struct {
		args string
		want loadtest.ExitCode
		says string
	}{
		{fmt.Sprintf("dns://relay.test.:%d?server=%s", port, server.Addr), loadtest.ExitOK, ""},
		{"dns://_relay._tcp.test.?server=" + server.Addr + " --driver sdk", loadtest.ExitOK, ""},
		{"dns://nobody.test.:7400?server=" + server.Addr, loadtest.ExitFailure, "no node"},
	} {
		var stdout, stderr bytes.Buffer
		got := run(strings.Fields("--discovery "+c.args+short), &stdout, &stderr)
		if line := stderr.String(); got != c.want || c.want != loadtest.ExitOK && (strings.Count(line, "\n") != 1 || !strings.Contains(line, c.says)) {
			t.Errorf("loadtest --discovery %s: exit code %d, want %d; it says %q", c.args, got, c.want, line)
		}
	}
	if sends := node.Stats().Sends; sends == 0 {
		t.Error("the node has got nothing")
	}
}
