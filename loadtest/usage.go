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

// usage measures this process and those of the server.
func (r *run) usage() (u usage, err error) {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return u, fmt.Errorf("getrusage: %w", err)
	}
	u.driver = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	if r.cfg.ServerPID == 0 {
		return u, nil
	}
	u.server, u.serverRSS, err = process.Total(append([]int{r.cfg.ServerPID}, r.cfg.MoreServerPIDs...)...)
	return u, err
}
