package usage

import "time"

// Total returns the CPU time that several processes have used so far, and their resident memory in
// bytes, each added up.
func Total(pids ...int) (cpu time.Duration, rss uint64, err error) {
	for _, pid := range pids {
		c, err := CPU(pid)
		if err != nil {
			return 0, 0, err
		}
		m, err := RSS(pid)
		if err != nil {
			return 0, 0, err
		}
		cpu, rss = cpu+c, rss+m
	}
	return cpu, rss, nil
}
