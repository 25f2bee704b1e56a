package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newNetwork(t *testing.T, n int) *Network {
	t.Helper()
	network, err := NewNetwork(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(network.Close)
	return network
}

// echo listens on the host and sends back what comes, until the test ends.
func echo(t *testing.T, host *Host) (addr string) {
	t.Helper()
	l, err := host.Listen(t.Context())
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

func dialFrom(t *testing.T, host *Host, addr string) net.Conn {
	t.Helper()
	conn, err := host.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// say writes a line.
func say(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
}

// hear reads what came back, and returns the error of waiting for it.
func hear(conn net.Conn, wait time.Duration) (string, error) {
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// While a host is cut off, connections from other hosts, from us and to us stand and are silent;
// afterwards they go on.
func TestPartition(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, 3)
	a, b, c := network.Hosts[0], network.Hosts[1], network.Hosts[2]
	cut := map[string]net.Conn{
		"between hosts": dialFrom(t, a, echo(t, b)),
		"from us":       dialFrom(t, nil, echo(t, b)),
	}
	open := map[string]net.Conn{
		"within the host":     dialFrom(t, b, echo(t, b)),
		"between other hosts": dialFrom(t, a, echo(t, c)),
	}
	check := func(conns map[string]net.Conn, what string) {
		t.Helper()
		for name, conn := range conns {
			if got, err := hear(conn, patience); got != what {
				t.Errorf("%s: %q (%v), want %q", name, got, err, what)
			}
		}
	}
	for _, conns := range []map[string]net.Conn{cut, open} {
		for _, conn := range conns {
			say(t, conn, "before")
		}
		check(conns, "before")
	}
	addr := echo(t, b)
	if err := b.Partition(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range cut {
		say(t, conn, "during")
	}
	dialled := make(chan error, 1)
	go func() { // for longer than an ARP takes that nobody answers
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		_, err := a.Dial(ctx, addr)
		dialled <- err
	}()
	for name, conn := range cut {
		if got, err := hear(conn, 2*time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %q (%v) came in a partition", name, got, err)
		}
	}
	for _, conn := range open {
		say(t, conn, "during")
	}
	check(open, "during")
	if err := <-dialled; err == nil || errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("dialled in a partition: %v", err)
	}
	if err := b.Heal(); err != nil {
		t.Fatal(err)
	}
	check(cut, "during")
}

// While the path between two hosts is broken, connections between them stand and are silent; others
// go on.
func TestCut(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, 3)
	a, b, c := network.Hosts[0], network.Hosts[1], network.Hosts[2]
	there, back := dialFrom(t, a, echo(t, b)), dialFrom(t, b, echo(t, a))
	open := []net.Conn{dialFrom(t, a, echo(t, c)), dialFrom(t, c, echo(t, b)), dialFrom(t, nil, echo(t, a))}
	check := func(what string, conns ...net.Conn) {
		t.Helper()
		for i, conn := range conns {
			if got, err := hear(conn, patience); got != what {
				t.Errorf("%d: %q (%v), want %q", i, got, err, what)
			}
		}
	}
	for _, conn := range append(open, there, back) {
		say(t, conn, "before")
	}
	check("before", append(open, there, back)...)
	if err := a.Cut(b); err != nil {
		t.Fatal(err)
	}
	for _, conn := range append(open, there, back) {
		say(t, conn, "during")
	}
	check("during", open...)
	for _, conn := range []net.Conn{there, back} {
		if got, err := hear(conn, time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q (%v) came over a path that is broken", got, err)
		}
	}
	if err := a.Mend(b); err != nil {
		t.Fatal(err)
	}
	check("during", there, back)
}

// Servers on hosts are found from other hosts and from us, and can be asked while they are cut off.
func TestServersOnHosts(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, 2)
	redis, err := StartRedis(t.Context(), RedisOptions{Host: network.Hosts[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	zooKeeper, err := StartZooKeeper(t.Context(), ZooKeeperOptions{Host: network.Hosts[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer zooKeeper.Close()
	for _, from := range []*Host{nil, network.Hosts[1]} {
		for addr, question := range map[string]string{redis.Addr: "ECHO imok\r\n", zooKeeper.Addr: "ruok"} {
			conn := dialFrom(t, from, addr)
			say(t, conn, question)
			if got, err := hear(conn, patience); !strings.Contains(got, "imok") {
				t.Errorf("%s from %s: %q, %v", addr, from.IP(), got, err)
			}
		}
	}
	if err := network.Hosts[0].Partition(); err != nil {
		t.Fatal(err)
	}
	if _, err := redis.Do(t.Context(), "PING"); err != nil {
		t.Errorf("Redis, cut off: %v", err)
	}
	if err := zooKeeper.ready(t.Context()); err != nil {
		t.Errorf("ZooKeeper, cut off: %v", err)
	}
	if err := network.Hosts[0].Heal(); err != nil {
		t.Fatal(err)
	}
	redis.Kill()
	if err := redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Programs on a host find us.
func TestHostReachesUs(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, 1)
	l, err := net.Listen("tcp", network.IP()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialFrom(t, network.Hosts[0], l.Addr().String())
}

func TestNetworkLeavesNothing(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, 1)
	if _, err := net.InterfaceByName(network.link); err != nil {
		t.Fatal(err)
	}
	network.Close()
	if _, err := net.InterfaceByName(network.link); err == nil {
		t.Errorf("%s is still there", network.link)
	}
	if _, err := NewNetwork(t.Context(), maxHosts+1); err == nil {
		t.Error("a network of too many hosts was made")
	}
}

// A port of ours is given to nobody else while no server listens there.
func TestReservedPorts(t *testing.T) {
	t.Parallel()
	host := newNetwork(t, 1).Hosts[0]
	two := func() error { // ports are all that there are
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0)
	}
	if err := host.Do(two); err != nil {
		t.Fatal(err)
	}
	ours, err := reservePorts(host, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.release()
	for range 100 {
		conn, err := host.Dial(t.Context(), ours.addr(0))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dialled where nobody listens: %v, %v", conn, err)
		}
	}
	other, err := host.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if l, err := host.Listen(t.Context()); err == nil {
		t.Errorf("a listener was given %v, ours is %v", l.Addr(), ours.addr(0))
	}
	server := func() error {
		l, err := net.Listen("tcp", ours.addr(0))
		if err == nil {
			l.Close()
		}
		return err
	}
	if err := host.Do(server); err != nil {
		t.Errorf("a server of ours: %v", err)
	}
	if more, err := reservePorts(host, 0, 1); err == nil {
		t.Errorf("a port was reserved twice: %v", more.numbers)
	}
}

// What the parent of TestNetworkDiesWithItsProcess does.
func holdNetwork() error {
	network, err := NewNetwork(context.Background(), 1)
	if err != nil {
		return err
	}
	if _, err := Start(context.Background(), Command{Path: "sleep", Args: []string{"1000"}, Host: network.Hosts[0]}); err != nil {
		return err
	}
	fmt.Printf("link=%s.\n", network.link)
	select {}
}

// However the process dies that has made a network, nothing of it stays behind.
func TestNetworkDiesWithItsProcess(t *testing.T) {
	t.Parallel()
	parent, link := startParent(t, "network", "link=")
	parent.Kill()
	eventually(t, "the interface is gone", func(context.Context) bool {
		_, err := net.InterfaceByName(link)
		return err != nil
	})
}
