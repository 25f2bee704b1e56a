// Package shape decides when messages are due, how large they are, and who receives them. It is
// pure: it reads no clock, and all chance comes from the caller's generator. All of it belongs to
// one goroutine at a time.
package shape

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// A Stage is a part of an open loop: the rate goes evenly from From to To messages a second.
type Stage struct {
	From, To float64
	For      time.Duration
}

// ParseStages reads stages such as "1000:10s,1000..5000:30s,5000:1m".
func ParseStages(text string) ([]Stage, error) {
	var stages []Stage
	for part := range strings.SplitSeq(text, ",") {
		rates, length, found := strings.Cut(strings.TrimSpace(part), ":")
		if !found {
			return nil, fmt.Errorf("%q is no stage, want RATE:TIME or FROM..TO:TIME, such as 1000..5000:30s", part)
		}
		from, to, ramp := strings.Cut(rates, "..")
		if !ramp {
			to = from
		}
		var s Stage
		var err [3]error
		s.From, err[0] = strconv.ParseFloat(from, 64)
		s.To, err[1] = strconv.ParseFloat(to, 64)
		s.For, err[2] = time.ParseDuration(length)
		for _, e := range err {
			if e != nil {
				return nil, fmt.Errorf("the stage %q: %w", part, e)
			}
		}
		stages = append(stages, s)
	}
	return stages, nil
}

// FormatStages writes stages as ParseStages reads them.
func FormatStages(stages []Stage) string {
	var parts []string
	for _, s := range stages {
		rate := strconv.FormatFloat(s.From, 'f', -1, 64)
		if s.To != s.From {
			rate += ".." + strconv.FormatFloat(s.To, 'f', -1, 64)
		}
		parts = append(parts, rate+":"+s.For.String())
	}
	return strings.Join(parts, ",")
}

// A Schedule says when each message of an open loop is due. It does not depend on what became of
// the messages before.
type Schedule struct {
	stages []Stage
	rng    *rand.Rand // nil: even gaps

	passed float64 // seconds before the current stage
	// messages of the current stage before the next one; with chance, not a whole number
	count float64
	next  int64
}

// Never is a time that does not come.
const Never = math.MaxInt64

// NewSchedule makes a schedule. After the last stage, its last rate holds. With rng, messages come
// at random (a Poisson process), and without it at even distances.
func NewSchedule(stages []Stage, rng *rand.Rand) *Schedule {
	last := stages[len(stages)-1].To
	s := &Schedule{stages: append(append([]Stage(nil), stages...), Stage{From: last, To: last, For: math.MaxInt64}), rng: rng}
	if rng != nil {
		s.count = rng.ExpFloat64()
	}
	s.find()
	return s
}

// Next returns when the next message is due, in nanoseconds since the beginning, or Never.
func (s *Schedule) Next() int64 { return s.next }

// Take goes on to the message after the next.
func (s *Schedule) Take() {
	if s.rng != nil {
		s.count += s.rng.ExpFloat64()
	} else {
		s.count++
	}
	s.find()
}

// find computes next from count. In a stage from rate a to rate b in T seconds, a*t + (b-a)/T*t*t/2
// messages are due until t.
func (s *Schedule) find() {
	for {
		stage := &s.stages[0]
		length := stage.For.Seconds()
		total := (stage.From + stage.To) / 2 * length
		if s.count < total {
			growth := (stage.To - stage.From) / length
			t := 2 * s.count / (stage.From + math.Sqrt(max(stage.From*stage.From+2*growth*s.count, 0)))
			if s.count == 0 {
				t = 0
			}
			s.next = int64(math.Round((s.passed + t) * 1e9))
			return
		}
		if len(s.stages) == 1 {
			s.next = Never
			return
		}
		s.count -= total
		s.passed += length
		s.stages = s.stages[1:]
	}
}

// A Queue holds the times of messages that are due and cannot leave yet. The zero value is empty.
type Queue struct {
	times []int64
	head  int
}

// Len returns how many wait.
func (q *Queue) Len() int { return len(q.times) - q.head }

// Push adds a time.
func (q *Queue) Push(at int64) {
	if q.head > 0 && len(q.times) == cap(q.times) { // rather than grow
		q.times = q.times[:copy(q.times, q.times[q.head:])]
		q.head = 0
	}
	q.times = append(q.times, at)
}

// First returns the oldest time. The queue is not empty.
func (q *Queue) First() int64 { return q.times[q.head] }

// Pop removes the oldest time.
func (q *Queue) Pop() {
	if q.head++; q.head == len(q.times) {
		q.times, q.head = q.times[:0], 0
	}
}
