package attack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Phase is a part of a measurement.
type Phase int

// The phases, in their order.
const (
	Baseline Phase = iota // nobody attacks
	Attacked
	Recovery // the attack has just ended
	After    // everything must be as in the baseline
	phases
)

// What innocents do.
const (
	opSend  = "send"   // a message with ack between connections that know each other
	opFirst = "first"  // the same, but the first one ever to its ID
	opBind  = "bind"   // of a new ID, and its unbind
	opLook  = "lookup" // of a bound ID
	opHello = "hello"  // connect, hello, welcome
	opLoad  = "load"   // the messages of the load test
)

// Felt is the effect on innocents in one phase. Any goroutine may call its methods.
type Felt struct {
	mu sync.Mutex
	// guarded by mu; durations of operations by name; of opSend, only those of acked ones
	times map[string][]time.Duration
	count map[string]uint64            // guarded by mu; of operations by name
	bad   map[string]map[string]uint64 // guarded by mu; how failed operations ended, by name
	load  map[string]uint64            // guarded by mu; outcomes of the load test
}

// add records one operation. An empty word means that it succeeded.
func (f *Felt) add(op, word string, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == nil {
		f.times, f.count, f.bad = make(map[string][]time.Duration), make(map[string]uint64), make(map[string]map[string]uint64)
	}
	f.count[op]++
	if word == "" || op != opSend {
		f.times[op] = append(f.times[op], took)
	}
	if word == "" {
		return
	}
	if f.bad[op] == nil {
		f.bad[op] = make(map[string]uint64)
	}
	f.bad[op][word]++
}

// addLoad records how messages of the load test ended.
func (f *Felt) addLoad(outcomes map[string]uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.load = outcomes
}

// p99 returns the time within which 99 of 100 operations of one kind ended, and the longest time.
// Both are 0 if there was no operation.
func (f *Felt) p99(op string) (p99, longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := slices.Sorted(slices.Values(f.times[op]))
	if len(times) == 0 {
		return 0, 0
	}
	return times[(len(times)*99+99)/100-1], times[len(times)-1]
}

// total counts operations of all kinds, and those that failed.
func (f *Felt) total() (all, failed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.count {
		all += n
	}
	for _, bad := range f.bad {
		for _, n := range bad {
			failed += n
		}
	}
	for word, n := range f.load {
		all += n
		if word != "acked" {
			failed += n
		}
	}
	return all, failed
}

// failures lists which operations failed, and how.
func (f *Felt) failures() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, op := range slices.Sorted(maps.Keys(f.bad)) {
		for _, word := range slices.Sorted(maps.Keys(f.bad[op])) {
			list = append(list, fmt.Sprintf("%d %s %s", f.bad[op][word], op, word))
		}
	}
	for _, word := range slices.Sorted(maps.Keys(f.load)) {
		if n := f.load[word]; n > 0 && word != "acked" {
			list = append(list, fmt.Sprintf("%d %s %s", n, opLoad, word))
		}
	}
	return strings.Join(list, ", ")
}

// reset clears all records.
func (f *Felt) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.times, f.count, f.bad, f.load = nil, nil, nil, nil
}
