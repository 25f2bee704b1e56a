package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/internal/cli"
)

// systemd hears when the node serves, reloads and stops, and meanwhile that its loops run.
func TestServiceManager(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	p := start(t, []string{"NOTIFY_SOCKET=" + name, "WATCHDOG_USEC=1000000"})
	clients, _ := p.addresses()
	next := func(want string) {
		t.Helper()
		for text := make([]byte, 4096); ; {
			n, err := conn.Read(text)
			if err != nil {
				t.Fatalf("%v, waiting for %q", err, want)
			}
			if got := string(text[:n]); strings.HasPrefix(got, want) {
				return
			} else if got != "WATCHDOG=1" {
				t.Fatalf("%q, want %q", got, want)
			}
		}
	}
	next("READY=1\nSTATUS=serves clients on " + clients)
	next("WATCHDOG=1")
	next("WATCHDOG=1")
	p.signal(syscall.SIGHUP)
	next("RELOADING=1\nMONOTONIC_USEC=")
	next("READY=1\n")
	p.signal(syscall.SIGTERM)
	next("STOPPING=1\n")
	if code, log := p.exit(); code != cli.ExitOK {
		t.Errorf("exit code %d: %s", code, log)
	}
	code, log := start(t, []string{"NOTIFY_SOCKET=nonsense"}).exit()
	if code != cli.ExitUsage || !strings.Contains(log, "NOTIFY_SOCKET") {
		t.Errorf("exit code %d: %s", code, log)
	}
}
