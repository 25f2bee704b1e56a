package localcluster

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "--node-id" {
		connect(os.Args[3])
	}
	goleak.VerifyTestMain(m)
}

// connect is a process that moves bytes between a connection and its stdin and stdout.
func connect(addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		os.Exit(1)
	}
	go func() { _, _ = io.Copy(conn, os.Stdin) }()
	_, _ = io.Copy(os.Stdout, conn)
	os.Exit(0)
}

// node is a process that is called as a node is, and has a connection.
type node struct {
	to   io.Writer
	from *os.File
}

func startNode(t *testing.T, name, addr string) *node {
	t.Helper()
	cmd := exec.Command(os.Args[0], "--node-id", name, addr)
	to, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &node{to, from.(*os.File)}
}

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

func say(t *testing.T, conn io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, conn io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("heard %q, %v, want %q", got, err, text)
	}
}

// silent fails if anything comes within a moment. Nothing can come later either while the path is
// cut, so a slow machine does not make the test fail.
func silent(t *testing.T, conn interface {
	io.Reader
	SetReadDeadline(t time.Time) error
}) {
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

// TestDialler has two nodes that dial the same door, and cuts the path from one of them. What they
// say is not readable, as with TLS.
func TestDialler(t *testing.T) {
	p := newPaths()
	defer p.close()
	d, err := p.peersOf("n3")
	if err != nil {
		t.Fatal(err)
	}
	d.lead(echo(t))
	p.cut([][]string{{"n1"}, {"n3"}})
	cut, whole := startNode(t, "n1", d.addr()), startNode(t, "n2", d.addr())
	say(t, cut.to, "\x16\x03\x01")
	say(t, whole.to, "\x16\x03\x01")
	hear(t, whole.from, "\x16\x03\x01")
	silent(t, cut.from)
	p.cut(nil)
	hear(t, cut.from, "\x16\x03\x01")
	stranger := dial(t, d.addr())
	if _, err := stranger.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that no cut concerns: %v, want it to be refused", err)
	}
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
