//go:build !linux

package loadtest

import "time"

// sleeper is time.Sleep where there is nothing better.
type sleeper struct{}

func newSleeper() (*sleeper, error) { return &sleeper{}, nil }

func (*sleeper) sleep(d time.Duration) error { time.Sleep(d); return nil }

func (*sleeper) close() {}
