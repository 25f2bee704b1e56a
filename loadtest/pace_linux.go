package loadtest

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper sleeps with a precision of about 60 µs. time.Sleep is a millisecond late whenever the
// process is idle, because the runtime then waits in epoll, which counts milliseconds. A timer
// descriptor wakes that epoll in time.
type sleeper struct {
	fd    int
	timer *os.File
}

func newSleeper() (*sleeper, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &sleeper{fd: fd, timer: os.NewFile(uintptr(fd), "timerfd")}, nil
}

func (s *sleeper) sleep(d time.Duration) error {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, 1)))} // 0 would disarm it
	if err := unix.TimerfdSettime(s.fd, 0, &at, nil); err != nil {
		return os.NewSyscallError("timerfd_settime", err)
	}
	var expirations [8]byte
	_, err := s.timer.Read(expirations[:])
	return err
}

func (s *sleeper) close() { s.timer.Close() }
