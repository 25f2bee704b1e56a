package proc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Network connects hosts by a switch. It is one of 10.219.0.0/24, 10.219.1.0/24, … that nothing on
// this machine uses. The process that has made it is in the network, too, at 10.219.x.254, and so
// is everything on this machine that is not on a Host.
//
// It needs root and the command ip (Debian's package iproute2).
type Network struct {
	Hosts []*Host // at 10.219.x.1, 10.219.x.2, …

	subnet byte
	hub    *os.File // the namespace of the switch
	link   string   // our interface
}

// Host is a network namespace of its own with an address in its Network and a loopback of its own.
// Programs run on it (Command.Host and similar fields) and see the same files as all others.
//
// A nil *Host is valid: it is where this process is, and its address is 127.0.0.1. But it cannot be
// cut off.
//
// Any goroutine may call all methods.
type Host struct {
	network *Network
	number  int // the last part of its address
	ns      *os.File
}

const (
	maxHosts  = 250
	ourNumber = 254 // the last part of our address
)

// NewNetwork creates a network of n hosts and waits until each can be reached.
//
// Namespaces have no names and live as long as a process holds them, which this process and its
// children do. So nothing is left over, in whatever way this process ends.
func NewNetwork(ctx context.Context, n int) (*Network, error) {
	if n < 1 || n > maxHosts {
		return nil, fmt.Errorf("a network of %d hosts: it may have 1 to %d", n, maxHosts)
	}
	w := &Network{}
	if err := w.build(n); err != nil {
		w.Close()
		return nil, fmt.Errorf("cannot make a network of namespaces: %w", err)
	}
	if err := w.waitReachable(ctx); err != nil {
		w.Close()
		return nil, fmt.Errorf("a network of namespaces: %w", err)
	}
	return w, nil
}

func (w *Network) build(n int) (err error) {
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the Debian package iproute2 is not installed: %w", err)
	}
	if w.hub, err = newNamespace(); err != nil {
		return err
	}
	if err := runIP(w.hub, nil, "link add switch type bridge", "link set switch up"); err != nil {
		return err
	}
	if err := w.claimSubnet(); err != nil {
		return err
	}
	for i := range n {
		h := &Host{network: w, number: i + 1}
		if h.ns, err = newNamespace(); err != nil {
			return err
		}
		w.Hosts = append(w.Hosts, h)
		if err := runIP(w.hub, h.ns, "link add "+h.port()+" type veth peer name eth0 netns "+peerFile); err != nil {
			return err
		}
	}
	for _, h := range w.Hosts {
		if err := runIP(h.ns, nil, append(w.configure("eth0", h.number), "link set lo up")...); err != nil {
			return err
		}
		if err := h.Heal(); err != nil {
			return err
		}
	}
	if err := runIP(nil, nil, w.configure(w.link, ourNumber)...); err != nil {
		return err
	}
	return runIP(w.hub, nil, "link set uplink up master switch")
}

// claimSubnet takes the first free subnet. It claims a subnet by naming our interface after its
// number: the kernel accepts a name only once, even if several processes try at the same time.
func (w *Network) claimSubnet() error {
	inUse := make(map[byte]bool)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if ipNet, ok := addr.(*net.IPNet); ok && strings.HasPrefix(ipNet.IP.String(), "10.219.") {
			inUse[ipNet.IP.To4()[2]] = true
		}
	}
	for i := range 256 {
		subnet := byte(i)
		if inUse[subnet] {
			continue
		}
		link := fmt.Sprintf("distmsg%d", subnet)
		err := runIP(nil, w.hub, "link add "+link+" type veth peer name uplink netns "+peerFile)
		if err == nil {
			w.subnet, w.link = subnet, link
			return nil
		} else if !strings.Contains(err.Error(), "File exists") {
			return err
		}
	}
	return errors.New("all of 10.219.0.0/16 is in use")
}

func (w *Network) addr(number int) string { return fmt.Sprintf("10.219.%d.%d", w.subnet, number) }

func (w *Network) mac(number int) string {
	return fmt.Sprintf("02:00:0a:db:%02x:%02x", w.subnet, number)
}

// configure returns the commands of ip for the member of the network with this number. Members know
// each other's MAC addresses permanently. Otherwise, while one is cut off, the others could not
// resolve its address, and the kernel would report "no route to host" within seconds, which is
// kinder than most partitions.
func (w *Network) configure(link string, number int) []string {
	lines := []string{
		"link set " + link + " address " + w.mac(number),
		"address add " + w.addr(number) + "/24 dev " + link,
		"link set " + link + " up",
	}
	know := func(other int) {
		if other != number {
			lines = append(lines, "neighbour replace "+w.addr(other)+" lladdr "+w.mac(other)+" nud permanent dev "+link)
		}
	}
	know(ourNumber)
	for _, h := range w.Hosts {
		know(h.number)
	}
	return lines
}

// waitReachable waits until each host answers, even if only that nothing listens: a link works only
// a moment after it is set up.
func (w *Network) waitReachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	dialer := net.Dialer{Timeout: 100 * time.Millisecond}
	for _, h := range w.Hosts {
		for {
			conn, err := dialer.DialContext(ctx, "tcp", h.IP()+":1")
			if err == nil {
				conn.Close()
			}
			if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s cannot be reached: %w", h.IP(), err)
			}
		}
	}
	return nil
}

// IP returns our address, at which programs on the hosts reach everything that is not on a host.
func (w *Network) IP() string { return w.addr(ourNumber) }

// Close ends the network. Programs that still run on its hosts are then isolated.
func (w *Network) Close() {
	if w.link != "" {
		// delete the link now, because the end of the namespaces takes time
		_ = runIP(nil, nil, "link delete "+w.link)
	}
	for _, h := range w.Hosts {
		if h.ns != nil {
			h.ns.Close()
		}
	}
	if w.hub != nil {
		w.hub.Close()
	}
}

// IP returns the host's address.
func (h *Host) IP() string {
	if h == nil {
		return "127.0.0.1"
	}
	return h.network.addr(h.number)
}

// port returns the name of the host's end at the switch.
func (h *Host) port() string { return fmt.Sprintf("port%d", h.number) }

// Partition cuts the host off from all others and from us. Packets from and to it are lost
// silently: its link stays up, and connections stay open. Programs on the host still reach each
// other.
func (h *Host) Partition() error { return runIP(h.network.hub, nil, "link set "+h.port()+" nomaster") }

// Heal ends a partition. TCP notices that when it sends again, which may take as long as the
// partition did.
func (h *Host) Heal() error {
	return runIP(h.network.hub, nil, "link set "+h.port()+" up master switch")
}

// Cut breaks the path between two hosts in both directions: packets are lost silently, while both
// hosts still reach all others. Mend restores the path.
func (h *Host) Cut(other *Host) error { return h.path(other, nowhere, nowhere) }

// Mend restores the path that Cut has broken.
func (h *Host) Mend(other *Host) error {
	return h.path(other, h.network.mac(h.number), other.network.mac(other.number))
}

// nowhere is a MAC address that nobody has.
const nowhere = "02:00:0a:da:00:00"

// path sets the MAC addresses under which two hosts reach each other.
func (h *Host) path(other *Host, own, others string) error {
	return errors.Join(other.neighbour(h, own), h.neighbour(other, others))
}

func (h *Host) neighbour(other *Host, mac string) error {
	return runIP(h.ns, nil, "neighbour replace "+other.IP()+" lladdr "+mac+" nud permanent dev eth0")
}

// Do calls f as if this process were on the host. Sockets that f itself opens, not on another
// goroutine, belong to the host permanently. Programs that f starts run on the host.
func (h *Host) Do(f func() error) error {
	if h == nil {
		return f()
	}
	return within(h.ns, f)
}

// Dial opens a TCP connection from the host. It fits client.Config.Dialer.
func (h *Host) Dial(ctx context.Context, addr string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		return err
	})
	return conn, err
}

// Listen listens for TCP connections on a free port of the host's address.
func (h *Host) Listen(ctx context.Context) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(h.IP(), "0"))
		return err
	})
	return l, err
}

const threadNamespace = "/proc/thread-self/ns/net"

// newNamespace creates a network namespace that lives as long as the file, or as something in it.
func newNamespace() (ns *os.File, err error) {
	unshare := func() error { return unix.Unshare(unix.CLONE_NEWNET) }
	err = excursion(unshare, func() error {
		ns, err = os.Open(threadNamespace)
		return err
	})
	return ns, err
}

// within calls f on a thread that is in the namespace.
func within(ns *os.File, f func() error) error {
	return excursion(func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) }, f)
}

// excursion calls f on a thread that leave has moved into another network namespace, and moves it
// back.
func excursion(leave, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open(threadNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := leave(); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot change the network namespace, which needs root: %w", err)
	}
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, back)
			return // keep the thread locked: it must run no other goroutine
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// peerFile is the path by which ip's commands name the second namespace.
const peerFile = "/proc/self/fd/3"

// runIP runs commands of ip(8) in a namespace; nil means ours.
func runIP(ns, peer *os.File, commands ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if peer != nil {
		cmd.ExtraFiles = []*os.File{peer} // its 3
	}
	var out []byte
	run := func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	}
	var err error
	if ns == nil {
		err = run()
	} else {
		err = within(ns, run)
	}
	if err != nil {
		said := strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; ")
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; "), err, said)
	}
	return nil
}
