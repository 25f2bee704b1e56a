package loadtest

import (
	"fmt"
	"syscall"
	"time"

	process "distmsg/internal/usage"
)

// usage is what the processes have used so far.
type usage struct {
	driver, server time.Duration // CPU time
	serverRSS      uint64
}

// measureUsage measures this process and, unless pid is 0, that of the server.
func measureUsage(pid int) (u usage, err error) {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return u, fmt.Errorf("getrusage: %w", err)
	}
	u.driver = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	if pid == 0 {
		return u, nil
	}
	if u.server, err = process.CPU(pid); err != nil {
		return u, err
	}
	u.serverRSS, err = process.RSS(pid)
	return u, err
}
