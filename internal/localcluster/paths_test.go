package localcluster

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"distmsg/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers with what it hears, until the other side has no more.
func echo(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func say(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("heard %q, %v, want %q", got, err, text)
	}
}

// silent fails if anything comes within a moment. Nothing can come later either while the path is
// cut, so a slow machine does not make the test fail.
func silent(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatal("the path is not cut")
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// TestCut cuts a path: bytes wait, other paths are whole, and nothing is lost when it is mended.
func TestCut(t *testing.T) {
	p := newPaths()
	defer p.close()
	target := echo(t)
	var conns []net.Conn
	for _, node := range []string{"n1", "n2", "n3"} {
		addr, err := p.between(node, Redis, target)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, dial(t, addr))
	}
	for _, conn := range conns {
		say(t, conn, "before")
		hear(t, conn, "before")
	}
	p.cut([][]string{{"n1", "n3"}, {"n2", Redis}})
	for _, conn := range conns {
		say(t, conn, "during")
	}
	hear(t, conns[1], "during")
	silent(t, conns[0])
	p.cut([][]string{{"n1"}, {Redis}}) // other cuts take the place of the first
	hear(t, conns[2], "during")
	silent(t, conns[0])
	p.cut(nil)
	hear(t, conns[0], "during")
	if err := conns[0].(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conns[0]); err != nil || len(rest) > 0 {
		t.Errorf("the end is %q, %v, and not in good order", rest, err)
	}
}

// TestDialler cuts the link from one of two nodes that dial the same door.
func TestDialler(t *testing.T) {
	p := newPaths()
	defer p.close()
	d, err := p.peersOf("n3")
	if err != nil {
		t.Fatal(err)
	}
	d.lead(echo(t))
	hello := func(node string) string {
		return string(codec.AppendPeerHello(nil, &codec.PeerHello{MinVersion: 1, MaxVersion: 1, Cluster: []byte("distmsg"),
			Node: []byte(node), Incarnation: 7, Nonce: bytes.Repeat([]byte{1}, codec.NonceLen)}))
	}
	p.cut([][]string{{"n1"}, {"n3"}})
	cut, whole := dial(t, d.addr()), dial(t, d.addr())
	say(t, cut, hello("n1"))
	say(t, whole, hello("n2"))
	hear(t, whole, hello("n2"))
	silent(t, cut)
	p.cut(nil)
	hear(t, cut, hello("n1"))
}

// A door whose process does not listen refuses, and closing a path that is cut does not hang.
func TestNobodyListens(t *testing.T) {
	p := newPaths()
	defer p.close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	addr, err := p.between("n1", Redis, gone.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil { // else it has refused even earlier
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("it does not refuse")
		}
		conn.Close()
	}
	p.cut([][]string{{"n1"}, {Redis}})
	say(t, dial(t, addr), "x")
}
