package localcluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// ownerOf returns the name of the node at the other end of a connection on loopback, or "" if it is
// not known. The kernel lists which process has the socket, and the command line of a node has its
// name. What the node says on the connection does not matter, so this also works with TLS.
func ownerOf(conn net.Conn) string {
	socket := socketOf(conn.RemoteAddr().(*net.TCPAddr), conn.LocalAddr().(*net.TCPAddr))
	if socket == "" {
		return ""
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if name := nodeOf(line); name != "" && hasOpen(filepath.Dir(line), socket) {
			return name
		}
	}
	return ""
}

// socketOf returns the socket with these ends as it stands in /proc/PID/fd, or "" if there is none.
func socketOf(local, remote *net.TCPAddr) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	ends := procAddr(local) + " " + procAddr(remote)
	for line := range bytes.Lines(table) {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …
		fields := strings.Fields(string(line))
		if len(fields) > 9 && fields[1]+" "+fields[2] == ends {
			return "socket:[" + fields[9] + "]"
		}
	}
	return ""
}

// procAddr returns an address as it stands in /proc/net/tcp: the IP address as a number in the
// machine's byte order, and the port, both in hexadecimal.
func procAddr(a *net.TCPAddr) string {
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a.IP.To4()), a.Port)
}

// nodeOf returns the value of --node-id in a command line of /proc, or "".
func nodeOf(file string) string {
	line, _ := os.ReadFile(file) // a process may end at any time
	args := strings.Split(string(line), "\x00")
	for i := range len(args) - 1 {
		if args[i] == "--node-id" {
			return args[i+1]
		}
	}
	return ""
}

// hasOpen reports whether a process has a socket open.
func hasOpen(proc, socket string) bool {
	files, _ := filepath.Glob(filepath.Join(proc, "fd", "*"))
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && target == socket {
			return true
		}
	}
	return false
}
