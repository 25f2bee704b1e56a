package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/routing"
)

func TestRunOnce(t *testing.T) {
	n := start(t, Config{})
	if err := n.Run(t.Context()); !errors.Is(err, ErrAlreadyRun) {
		t.Errorf("%v", err)
	}
	n.stop()
	if err := n.Run(t.Context()); !errors.Is(err, ErrAlreadyRun) {
		t.Errorf("%v", err)
	}
	if err := n.Drain(patient(t)); !errors.Is(err, ErrStopped) {
		t.Errorf("%v", err)
	}
}

// A context that ends is the one cause that is no error, even before anything has begun.
func TestRunContext(t *testing.T) {
	e, err := New(Config{Addr: "127.0.0.1:0", Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := e.Dialer()(patient(t), InProcessAddr); !errors.Is(err, ErrStopped) {
		t.Errorf("%v", err)
	}
	if err := e.Drain(patient(t)); !errors.Is(err, ErrStopped) {
		t.Errorf("%v", err)
	}
}

// What cannot start says why.
func TestRunCannotListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for name, cfg := range map[string]Config{
		"clients": {Addr: addr},
		"nodes":   {Addr: "127.0.0.1:0", PeerAddr: addr, Membership: &hubMember{hub: newHub()}, ClusterSecret: make([]byte, 16), Registry: routing.NewMemory(routing.MemoryConfig{})},
	} {
		cfg.Logger = quiet()
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(t.Context()); err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A listener that fails under the engine is an error of Run, and its sessions end as usual.
func TestRunListenerFails(t *testing.T) {
	long(t)
	for name, fail := range map[string]func(*node) net.Listener{
		"clients": func(n *node) net.Listener { return n.acceptor.listener },
		"nodes":   func(n *node) net.Listener { return n.acceptor.peerListener },
	} {
		t.Run(name, func(t *testing.T) {
			g := startGroup(t, 1, 2)
			n := g.nodes[0]
			c := n.join("a")
			s := n.attach(sdk.Config{}, "in")
			fail(n).Close()
			if err := n.ended(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
			c.fails(codec.FaultGoingAway)
			n.eventually("the session has no node", func() bool { return !s.State().Attached })
		})
	}
}

// pollers are the epoll instances of this process.
func pollers(t *testing.T) map[string]bool {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	found := make(map[string]bool)
	for _, fd := range all {
		if to, _ := os.Readlink(fd); to == "anon_inode:[eventpoll]" {
			found[filepath.Base(fd)] = true
		}
	}
	return found
}

// An event loop that ends is an error of Run. What was on it has ended with it, also for clients in
// the same process, and the rest ends as usual.
func TestRunLoopFails(t *testing.T) {
	long(t)
	warm, err := net.Listen("tcp", "127.0.0.1:0") // so that Go's own poller is there before
	if err != nil {
		t.Fatal(err)
	}
	warm.Close()
	before := pollers(t)
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
	clients := []*client{n.joinOn(0, "zero"), n.joinOn(1, "one")}
	hold := make(chan struct{})
	defer close(hold)
	var sessions []*sdk.Session
	for range 2 { // one on each loop
		sessions = append(sessions, n.attach(sdk.Config{Handler: func(context.Context, *sdk.Delivery) { <-hold }}))
	}
	if err := sessions[0].Bind(patient(t), "in"); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 2)
	for i, s := range sessions {
		from := "x" + strconv.Itoa(i) // its own: who loses it before it has sent is denied
		go func() {
			sent <- s.Bind(context.Background(), from)
			_, err := s.Send(context.Background(), sdk.Message{From: from, To: "in"})
			sent <- err
		}()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	broken := 0
	for fd := range pollers(t) {
		if !before[fd] && broken == 0 {
			broken++
			to, err := strconv.Atoi(fd)
			if err == nil {
				err = unix.Dup3(int(null.Fd()), to, unix.O_CLOEXEC)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if broken != 1 {
		t.Fatal("found no poller to break")
	}
	if err := n.ended(); !errors.Is(err, errLoopEnded) || !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v", err)
	}
	for range sessions {
		select {
		case err := <-sent:
			if err == nil {
				t.Error("acked")
			}
		case <-time.After(patience):
			t.Error("a send has no end")
		}
	}
	for _, s := range sessions {
		n.eventually("the session has no node", func() bool { return !s.State().Attached })
	}
	for _, c := range clients {
		for err = nil; err == nil; {
			_, err = c.read()
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Error("a connection stands")
		}
	}
}
