// Package systemd tells the service manager that started a program how the program is: sd_notify(3)
// and its watchdog. Without such a manager, it does nothing.
package systemd

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// sendTimeout bounds how long one notification may wait for the manager to read others.
const sendTimeout = time.Second

// Manager is the service manager. All methods may be called from any goroutine.
type Manager struct {
	socket   string        // of the manager; empty: there is none
	watchdog time.Duration // 0: the manager does not watch the program
}

// FromEnvironment returns the manager that the environment names. getenv is os.Getenv, and pid is
// this process. It is an error if the environment is not one that a manager sets.
func FromEnvironment(getenv func(string) string, pid int) (*Manager, error) {
	m := &Manager{socket: getenv("NOTIFY_SOCKET")}
	if m.socket == "" {
		return m, nil
	}
	if m.socket[0] != '/' && m.socket[0] != '@' { // @: a name that is not in the file system
		return nil, fmt.Errorf("NOTIFY_SOCKET is %q: want a path, or a name that begins with @", m.socket)
	}
	usec, of := getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID")
	if usec == "" || of != "" && of != strconv.Itoa(pid) {
		return m, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(24*time.Hour/time.Microsecond) {
		return nil, fmt.Errorf("WATCHDOG_USEC is %q: want microseconds, a day at most", usec)
	}
	m.watchdog = time.Duration(n) * time.Microsecond
	return m, nil
}

// Ready says that the program serves, for the first time or after Reloading. status is one line for
// people.
func (m *Manager) Ready(status string) error { return m.send("READY=1\nSTATUS=" + status) }

// Reloading says that the program reloads its configuration. Ready has to follow.
func (m *Manager) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("the monotonic clock: %w", err)
	}
	return m.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=reloads", now.Nano()/int64(time.Microsecond)))
}

// Stopping says that the program is about to end.
func (m *Manager) Stopping(status string) error { return m.send("STOPPING=1\nSTATUS=" + status) }

func (m *Manager) send(state string) error {
	if m.socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("the service manager cannot be notified: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("the service manager cannot be notified: %w", err)
	}
	return nil
}

// Watch tells the watchdog that the program lives, until ctx ends. silence returns for how long the
// program has done nothing: from half of the watchdog's interval on, Watch sends nothing, so that
// the manager ends the program. It reports failures and silence to warn.
func (m *Manager) Watch(ctx context.Context, silence func() time.Duration, warn func(error)) {
	if m.watchdog == 0 {
		return
	}
	tick := time.NewTicker(m.watchdog / 4)
	defer tick.Stop()
	for {
		if s := silence(); s >= m.watchdog/2 {
			warn(fmt.Errorf("the program has not run for %v, so the watchdog gets no sign of life", s))
		} else if err := m.send("WATCHDOG=1"); err != nil {
			warn(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
