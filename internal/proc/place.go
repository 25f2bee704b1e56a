package proc

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ports is a set of TCP ports of a host that are reserved until they are released, even while the
// server that uses them is down. For each port there is a socket that is bound and does not listen.
// Because it has SO_REUSEADDR, a server may still listen there. But the kernel gives the port to
// nobody else: not to a listener that requests any port, and not to a connection as its source
// port. The latter does happen: a client that dials a dead server again and again eventually gets
// the server's port as its own, connects to itself, and the server cannot come back.
type ports struct {
	host    *Host
	numbers []int
	sockets []int
}

// reservePorts reserves n ports: first and the following ones, or any free ones if first is 0.
func reservePorts(host *Host, first, n int) (*ports, error) {
	p := &ports{host: host}
	err := host.Do(func() error {
		for i := range n {
			number := 0
			if first != 0 {
				number = first + i
			}
			if err := p.reserve(number); err != nil {
				return fmt.Errorf("cannot reserve port %d of %s: %w", number, host.IP(), err)
			}
		}
		return nil
	})
	if err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

// rowTries is how often ReserveRow looks for a row.
const rowTries = 100

// ReserveRow reserves n ports of 127.0.0.1 in a row, any that are free, for servers that are given
// them later. The caller releases them when these servers have ended.
func ReserveRow(n int) (first int, release func(), err error) {
	for range rowTries {
		var head, rest *ports
		if head, err = reservePorts(nil, 0, 1); err != nil {
			return 0, nil, err
		}
		first = head.numbers[0]
		if rest, err = reservePorts(nil, first+1, n-1); err == nil {
			return first, func() { head.release(); rest.release() }, nil
		}
		head.release()
	}
	return 0, nil, err
}

// reserve adds a port; 0 means any free one.
func (p *ports) reserve(number int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p.sockets = append(p.sockets, fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: number, Addr: [4]byte(net.ParseIP(p.host.IP()).To4())}); err != nil {
		return err
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	p.numbers = append(p.numbers, addr.(*unix.SockaddrInet4).Port)
	return nil
}

// addr returns host:port.
func (p *ports) addr(i int) string {
	return net.JoinHostPort(p.host.IP(), strconv.Itoa(p.numbers[i]))
}

func (p *ports) release() {
	for _, fd := range p.sockets {
		_ = unix.Close(fd)
	}
	p.sockets = nil
}

// place is what a server needs: ports, and a directory for its files.
type place struct {
	*ports
	dir  string
	temp bool // dir was made here, so it is removed here
}

// newPlace reserves ports as reservePorts does, and creates dir if it does not exist. If dir is
// empty, it creates a temporary directory.
func newPlace(host *Host, first, n int, dir string) (*place, error) {
	p := &place{temp: dir == ""}
	var err error
	if p.temp {
		p.dir, err = os.MkdirTemp("", "distmsg-")
	} else if p.dir, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(p.dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	if p.ports, err = reservePorts(host, first, n); err != nil {
		p.removeDir()
		return nil, err
	}
	return p, nil
}

func (p *place) leave() {
	p.release()
	p.removeDir()
}

func (p *place) removeDir() {
	if p.temp {
		_ = os.RemoveAll(p.dir)
	}
}
