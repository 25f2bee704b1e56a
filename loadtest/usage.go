package loadtest

import (
	"fmt"
	"syscall"
	"time"

	process "distmsg/internal/usage"
	"distmsg/loadtest/internal/scrape"
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

// remote reports whether CPU and memory of the servers come from their metrics.
func (r *run) remote() bool { return len(r.cfg.Metrics) > 0 && r.cfg.ServerPID == 0 }

// scraped adds to a usage what the servers' metrics say now. It may take seconds, so it must not be
// called by the driver.
func (r *run) scraped(u *usage) {
	if !r.remote() {
		return
	}
	var err error
	if u.server, u.serverRSS, err = scrape.Usage(r.cfg.Metrics); err != nil && r.server == nil {
		r.server = err
	}
}

// reachMetrics reads the metrics for the first time, which says what the version of the server is.
func (r *run) reachMetrics() (err error) {
	if r.build, err = scrape.Reach(r.cfg.Metrics); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
