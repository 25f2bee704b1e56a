package zookeeper

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"distmsg/discovery"
	"distmsg/internal/proc"
)

func TestMembers(t *testing.T) {
	t.Parallel()
	at := place(t, shared.Addr)
	a, b := open(t, Config{URL: at}), open(t, Config{URL: at})
	client := open(t, Config{URL: at, ReadOnly: true})
	if nodes, changed := client.Nodes(); len(nodes) != 0 || changed == nil {
		t.Errorf("at first: %v", nodes)
	}
	announce(t, a, record(1))
	announce(t, b, record(2))
	for _, m := range []*Membership{a, b, client} {
		sees(t, m, records(1, 2))
	}

	data, _, err := raw(t, shared.Addr).Get(a.dir + "/node-01-8000000000000001")
	var fields map[string]any
	if err != nil || json.Unmarshal(data, &fields) != nil || fields["id"] != "node-01" || fields["state"] != "serving" {
		t.Errorf("the znode is %s, %v", data, err)
	}

	nodes, changed := client.Nodes()
	if len(nodes) != 2 || nodes[0] != (discovery.Node{ID: "node-01", Addr: "10.0.0.1:7400"}) {
		t.Errorf("nodes: %v", nodes)
	}
	loaded := record(1)
	loaded.Load = 1000
	announce(t, a, loaded)
	sees(t, client, []discovery.Record{loaded, record(2)})
	select {
	case <-changed:
		t.Error("clients hear of load")
	default:
	}
	draining := loaded
	draining.Draining = true
	announce(t, a, draining)
	sees(t, b, []discovery.Record{draining, record(2)})
	<-changed
	if nodes, _ := client.Nodes(); len(nodes) != 1 || nodes[0].ID != "node-02" {
		t.Errorf("one drains: %v", nodes)
	}

	reborn := record(1) // the same process goes on under a new incarnation (S24)
	reborn.Incarnation++
	announce(t, a, reborn)
	sees(t, b, []discovery.Record{reborn, record(2)})
	if err := a.Withdraw(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// A node does not keep itself on the list, as it would another one so shortly after connecting.
	if got, ok := seesWithin(t, a, records(2), grace-time.Second); !ok {
		t.Errorf("withdrawn, it sees %v", got)
	}
	sees(t, b, records(2))
	b.Close()
	sees(t, a, records())
	if err := client.Announce(testContext(t), record(3)); err == nil {
		t.Error("a client announced a node")
	}
	if err := b.Announce(testContext(t), record(3)); err == nil {
		t.Error("announced after Close")
	}
}

func TestTwoNodesWithOneID(t *testing.T) {
	t.Parallel()
	at := place(t, shared.Addr)
	a, b := open(t, Config{URL: at}), open(t, Config{URL: at})
	older, newer := record(1), record(1)
	older.Incarnation, newer.Incarnation = 900, 5
	announce(t, a, older)
	announce(t, b, newer)
	sees(t, a, []discovery.Record{older, newer}) // the newer one is last, whatever its number
}

// What somebody else puts there, and what a later version puts there, does no harm.
func TestForeignZnodes(t *testing.T) {
	t.Parallel()
	m := open(t, Config{URL: place(t, shared.Addr)})
	conn := raw(t, shared.Addr)
	for name, data := range map[string]string{
		"note": "do not touch", "empty": "", "later": `{"version":99,"id":"later","incarnation":"1"}`,
	} {
		if _, err := conn.Create(m.dir+"/"+name, []byte(data), zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
	}
	announce(t, m, record(1))
	sees(t, m, records(1))
	if err := conn.Delete(m.dir+"/"+nameOf(record(1)), -1); err != nil { // by an operator's mistake
		t.Fatal(err)
	}
	eventually(t, patience, "the node has registered again", func() bool {
		there, _, err := conn.Exists(m.dir + "/" + nameOf(record(1)))
		return there && err == nil
	})
}

// A registration that a former session has left would end with that session: it is replaced.
func TestFormerSession(t *testing.T) {
	t.Parallel()
	m := open(t, Config{URL: place(t, shared.Addr)})
	conn, path := raw(t, shared.Addr), m.dir+"/"+nameOf(record(1))
	data, err := encode(record(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Create(path, data, zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	announce(t, m, record(1))
	there, stat, err := conn.Exists(path)
	if err != nil || !there || stat.EphemeralOwner == conn.SessionID() {
		t.Errorf("%v, %+v, %v", there, stat, err)
	}
	sees(t, m, records(1))
}

func TestCrash(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	at := place(t, shared.Addr)
	m := open(t, Config{URL: at})
	announce(t, m, record(1))
	child, err := proc.Start(t.Context(), proc.Command{
		Path: self,
		Env:  []string{helperEnv + "=" + at},
		Ready: func(_ context.Context, p *proc.Process) error {
			if out := p.Output(); !strings.Contains(out, "announced: <nil>.") {
				return fmt.Errorf("not announced: %s", out)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	sees(t, m, records(1, 9))
	child.Kill()
	killed := time.Now()
	sees(t, m, records(1))
	t.Logf("gone %v after kill -9, the session timeout is %v", time.Since(killed).Round(time.Millisecond), session)
}

func TestManyNodes(t *testing.T) {
	t.Parallel()
	const n = 50
	at := place(t, shared.Addr)
	nodes := make([]*Membership, n)
	want := []int{}
	for i := range n {
		nodes[i] = open(t, Config{URL: at, SessionTimeout: 10 * time.Second})
		want = append(want, i)
	}
	began := time.Now()
	failed := make(chan error, n)
	for i, m := range nodes {
		go func() { failed <- m.Announce(testContext(t), record(i)) }()
	}
	for range n {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range nodes {
		sees(t, m, records(want...))
	}
	t.Logf("%d nodes know each other after %v", n, time.Since(began).Round(time.Millisecond))
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	m := open(t, Config{URL: place(t, shared.Addr)})
	for _, end := range []func(cancel func()){func(cancel func()) { cancel() }, func(func()) { m.Close() }} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		called, ended := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(ended)
			m.Watch(ctx, func([]discovery.Record) { called <- struct{}{} })
		}()
		<-called
		end(cancel)
		<-ended
	}
}

// Names are dialled as they stand in the URL, each time: a server that moved is found.
func TestNamesAreResolvedEachTime(t *testing.T) {
	t.Parallel()
	first, second := startProxy(t, shared.Addr), startProxy(t, shared.Addr)
	var where atomic.Pointer[proxy]
	where.Store(first)
	m := open(t, Config{
		URL: place(t, "zookeeper.test:1234"),
		Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
			if addr != "zookeeper.test:1234" {
				return nil, fmt.Errorf("dialled %s", addr)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", where.Load().addr)
		},
	})
	where.Store(second)
	first.refuses.Store(true)
	first.cut()
	announce(t, m, record(1))
	sees(t, m, records(1))
}

func TestSeveralServers(t *testing.T) {
	t.Parallel()
	dead, silent := startProxy(t, shared.Addr), startProxy(t, shared.Addr)
	dead.refuses.Store(true)
	silent.silent.Store(true)
	for range 6 { // they are tried in random order
		m := open(t, Config{URL: place(t, dead.addr+","+silent.addr+","+shared.Addr)})
		announce(t, m, record(1))
		m.Close()
	}
}
