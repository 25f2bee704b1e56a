package main

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/internal/proc"
)

// crashing is an app server that does not come back when its connection ends: it speaks the
// protocol by hand.
type crashing struct {
	t    *testing.T
	conn net.Conn
	in   []byte
}

func (c *crashing) send(frame []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// await reads up to a frame of that kind.
func (c *crashing) await(kind codec.Kind) {
	c.t.Helper()
	for {
		body, n, err := codec.Split(c.in, 1<<20)
		if err != nil {
			c.t.Fatal(err)
		}
		if n > 0 {
			c.in = c.in[n:]
			if got, _ := codec.PeekKind(body); got == kind {
				return
			}
			continue
		}
		chunk := make([]byte, 4096)
		got, err := c.conn.Read(chunk)
		if err != nil {
			c.t.Fatalf("waiting for %v: %v", kind, err)
		}
		c.in = append(c.in, chunk[:got]...)
	}
}

// bindAndWait binds id at a node, as a session of its own.
func bindAndWait(t *testing.T, addr, id string) *crashing {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := &crashing{t: t, conn: conn}
	c.send(codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version}))
	c.await(codec.KindWelcome)
	c.send(codec.AppendBind(nil, 1, codec.PolicyKickOld, []codec.IDEpoch{{ID: []byte(id)}}))
	c.await(codec.KindBound)
	return c
}

// Who is online at another node is heard of through Redis: who comes and who goes, and, after the
// resume window, whose app server has crashed, or whose node.
func TestWatch(t *testing.T) {
	const window = 2 * time.Second
	redis, zk := startRedis(t, proc.RedisOptions{}), startZooKeeper(t)
	node := func(id string) (p *process, addr, admin string) {
		p = start(t, []string{testSecret}, "--node-id="+id, "--peer-listen=127.0.0.1:0", "--registry="+redis.URL(),
			"--discovery=zk://"+zk.Addr+"/test", "--resume-window="+window.String())
		addr, admin = p.addresses()
		return p, addr, admin
	}
	p0, addr0, admin0 := node("n0")
	p1, addr1, _ := node("n1")
	eventually(t, "linked", contains(t, admin0+"/metrics", "\ndistmsg_links 1\n"))
	eventually(t, "Redis has lost nothing", contains(t, admin0+"/healthz", "\nok\n"))

	heard := make(chan client.Presence, 16)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	eye, err := client.Dial(ctx, client.Config{Nodes: []string{addr0}, OnPresence: func(all []client.Presence) {
		for _, p := range all {
			heard <- p
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer eye.Close(context.Background())
	now, err := eye.Watch(ctx, "bob", "carol", "dave")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range now {
		if p.Code != codec.CodeNoRoute {
			t.Fatalf("%v before anybody is there", p)
		}
	}
	expect := func(id string, code codec.Code) {
		t.Helper()
		select {
		case p := <-heard:
			if p.ID != id || p.Code != code || p.Epoch == 0 {
				t.Fatalf("%v, want %q %v", p, id, code)
			}
		case <-ctx.Done():
			t.Fatalf("nothing is heard of %q, want %v", id, code)
		}
	}
	bob := session(t, addr1, "bob")
	expect("bob", codec.CodeOK)
	if err := bob.Close(ctx); err != nil {
		t.Fatal(err)
	}
	expect("bob", codec.CodeNoRoute)
	carol := bindAndWait(t, addr1, "carol")
	expect("carol", codec.CodeOK)
	bindAndWait(t, addr1, "dave")
	expect("dave", codec.CodeOK)
	eventually(t, "they are counted", contains(t, admin0+"/metrics", "\ndistmsg_watched_ids 3\n"))

	crashed := time.Now()
	carol.conn.Close()
	expect("carol", codec.CodeNoRoute)
	if took := time.Since(crashed); took < window-100*time.Millisecond || took > window+10*time.Second {
		t.Errorf("an app server's crash was told after %v", took)
	}
	crashed = time.Now()
	p1.signal(syscall.SIGKILL)
	p1.exit()
	// ZooKeeper's session has to end, too: nobody else knows that the node is dead
	expect("dave", codec.CodeNoRoute)
	if took := time.Since(crashed); took < window-100*time.Millisecond || took > window+20*time.Second {
		t.Errorf("a node's crash was told after %v", took)
	}
	t.Logf("a node's crash was told after %v", time.Since(crashed))
	p0.signal(syscall.SIGTERM)
	p0.exit()
}
