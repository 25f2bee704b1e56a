package systemd_test

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"distmsg/internal/systemd"
)

const patience = time.Minute

// listen is the manager's end. next returns what it is told, in order.
func listen(t *testing.T, name string) (next func() string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 4096)
		n, err := conn.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
}

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if value, found := strings.CutPrefix(pair, name+"="); found {
				return value
			}
		}
		return ""
	}
}

func TestStates(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@distmsg-test-" + strconv.FormatInt(time.Now().UnixNano(), 36)} {
		next := listen(t, name)
		m, err := systemd.FromEnvironment(environment("NOTIFY_SOCKET="+name), 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			err  error
			want string
		}{
			{m.Ready("serves"), "READY=1\nSTATUS=serves"},
			{m.Reloading(), "RELOADING=1\nMONOTONIC_USEC="},
			{m.Stopping("drains"), "STOPPING=1\nSTATUS=drains"},
		} {
			if got := next(); tc.err != nil || !strings.HasPrefix(got, tc.want) {
				t.Errorf("%q, %v; want %q", got, tc.err, tc.want)
			}
		}
	}
}

// MONOTONIC_USEC is the clock of the manager: it does not go back, and counts microseconds.
func TestMonotonic(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	next := listen(t, name)
	m, err := systemd.FromEnvironment(environment("NOTIFY_SOCKET="+name), 1)
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	began := time.Now()
	for range 3 {
		if err := m.Reloading(); err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(next(), "MONOTONIC_USEC=")
		text, _, _ = strings.Cut(text, "\n")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < last || last > 0 && n-last > time.Since(began).Microseconds()+1 {
			t.Errorf("%q after %d, %v", text, last, err)
		}
		last = n
	}
}

func TestNoManager(t *testing.T) {
	m, err := systemd.FromEnvironment(environment("WATCHDOG_USEC=1000"), 1)
	if err != nil || m.Ready("") != nil || m.Reloading() != nil || m.Stopping("") != nil {
		t.Errorf("%v", err)
	}
	m.Watch(t.Context(), nil, nil) // returns
}

func TestEnvironments(t *testing.T) {
	for _, tc := range []struct {
		pairs []string
		wrong string
	}{
		{[]string{"NOTIFY_SOCKET=relative"}, "NOTIFY_SOCKET"},
		{[]string{"NOTIFY_SOCKET=/s", "WATCHDOG_USEC=soon"}, "WATCHDOG_USEC"},
		{[]string{"NOTIFY_SOCKET=/s", "WATCHDOG_USEC=-1"}, "WATCHDOG_USEC"},
		{[]string{"NOTIFY_SOCKET=/s", "WATCHDOG_USEC=9000000000000000000"}, "WATCHDOG_USEC"},
		{[]string{"NOTIFY_SOCKET=/s", "WATCHDOG_USEC=soon", "WATCHDOG_PID=8"}, ""}, // another one's
	} {
		_, err := systemd.FromEnvironment(environment(tc.pairs...), 7)
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%q: %v", tc.pairs, err)
		}
	}
}

// A manager that has gone is an error, and none that waits.
func TestManagerGone(t *testing.T) {
	m, err := systemd.FromEnvironment(environment("NOTIFY_SOCKET="+filepath.Join(t.TempDir(), "gone")), 1)
	if err != nil || m.Ready("") == nil {
		t.Errorf("%v, and no error of Ready", err)
	}
}

// The watchdog hears of a program that does something, and nothing of a silent one: of seven looks,
// three find silence.
func TestWatchdog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	next := listen(t, name)
	m, err := systemd.FromEnvironment(environment("NOTIFY_SOCKET="+name, "WATCHDOG_USEC=40000", "WATCHDOG_PID=7"), 7)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks, warnings := 0, 0
	m.Watch(ctx, func() time.Duration {
		if looks++; looks == 7 {
			cancel()
		}
		if looks >= 3 && looks <= 5 {
			return 20 * time.Millisecond
		}
		return 19 * time.Millisecond
	}, func(error) { warnings++ })
	if err := m.Stopping(""); err != nil {
		t.Fatal(err)
	}
	told := 0
	for next() == "WATCHDOG=1" {
		told++
	}
	// a tick may come before the context's end is seen
	if warnings != 3 || told != looks-3 || looks > 8 {
		t.Errorf("%d looks, %d warnings, and the watchdog was told %d times", looks, warnings, told)
	}
}
