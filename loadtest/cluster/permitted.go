package cluster

import (
	"distmsg/internal/localcluster"
	"distmsg/loadtest"
	"distmsg/loadtest/faultscript"
)

// permittedBy returns the outcomes, besides acked, that docs/semantics.md permits when this breaks,
// until the next fault. The tests of internal/faults prove the same.
func permittedBy(s *faultscript.Step) []string {
	server := s.Target == localcluster.Redis || s.Target == localcluster.ZooKeeper
	switch {
	case s.Target == localcluster.Redis:
		return []string{"registry_unavailable"} // of IDs that have to be looked up
	case server:
		return nil // the nodes know each other already
	}
	switch s.Verb {
	case faultscript.Kill:
		return []string{"lost", "unreachable"}
	case faultscript.Stop:
		// What waits at the stopped node itself ends with its time to live.
		return []string{"lost", "unreachable", "timeout"}
	case faultscript.Partition:
		permitted := []string{"lost", "unreachable"}
		for _, side := range s.Sides {
			for _, name := range side {
				if name == localcluster.Redis {
					permitted = append(permitted, "registry_unavailable")
				}
			}
		}
		return permitted
	}
	return nil // drain, restart and upgrade lose nothing
}

// permittedAlways returns the outcomes that the load itself causes.
func permittedAlways(load *loadtest.Config) (words []string) {
	if load.Offline > 0 {
		// In the first seconds of a new Redis, nodes do not know yet that an ID is bound nowhere.
		words = append(words, "no_route", "registry_unavailable")
	}
	if load.Churn.Reconnects > 0 {
		words = append(words, "lost", "unreachable")
	}
	return words
}
