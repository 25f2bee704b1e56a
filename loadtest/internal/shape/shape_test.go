package shape

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// due counts the messages of a schedule before a time.
func due(s *Schedule, before time.Duration) (n int) {
	for s.Next() < int64(before) {
		s.Take()
		n++
	}
	return n
}

func parse(t *testing.T, text string) []Stage {
	t.Helper()
	stages, err := ParseStages(text)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

func TestSchedule(t *testing.T) {
	for text, want := range map[string][]int{ // messages due after 1, 2, 3 and 4 seconds
		"100:1s":                 {100, 200, 300, 400},
		"100:2s,10:1s":           {100, 200, 210, 220},
		"0..100:2s,100:1s":       {25, 100, 200, 300},
		"100..0:2s":              {75, 100, 100, 100},
		"50:1s,0:1s,50:1s,0:10s": {50, 50, 100, 100},
	} {
		s := NewSchedule(parse(t, text), nil)
		n := 0
		for i, w := range want {
			n += due(s, time.Duration(i+1)*time.Second)
			if n < w-1 || n > w+1 {
				t.Errorf("%s: %d messages until %d s, want %d", text, n, i+1, w)
			}
		}
	}
	// the first message is due at once, and the gaps are even
	s := NewSchedule([]Stage{{1000, 1000, time.Second}}, nil)
	for k := range int64(3000) {
		if s.Next() != k*int64(time.Millisecond) {
			t.Fatalf("message %d is due at %d", k, s.Next())
		}
		s.Take()
	}
}

// A Poisson process has as many messages as an even one, but its gaps differ as much as they are
// long.
func TestPoisson(t *testing.T) {
	s := NewSchedule([]Stage{{1000, 1000, time.Second}}, rand.New(rand.NewPCG(1, 2)))
	var last, n int64
	var squares float64
	for s.Next() < int64(100*time.Second) {
		if s.Next() < last {
			t.Fatal("time goes backwards")
		}
		gap := float64(s.Next()-last)/1e6 - 1
		squares += gap * gap
		last = s.Next()
		s.Take()
		n++
	}
	if deviation := math.Sqrt(squares / float64(n)); n < 99_000 || n > 101_000 || deviation < 0.97 || deviation > 1.03 {
		t.Errorf("%d messages, the deviation of the gaps is %.3f ms", n, deviation)
	}
}

func TestParse(t *testing.T) {
	const text = "1000:10s,1000..5000:30s"
	if got := FormatStages(parse(t, text)); got != text {
		t.Errorf("%s", got)
	}
	for _, bad := range []string{"", "1000", "fast:1s", "1..x:1s", "10:long"} {
		if _, err := ParseStages(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	sizes, err := ParseSizes("64:9, 4096")
	if err != nil || FormatSizes(sizes) != "64:9,4096:1" {
		t.Errorf("%v, %v", sizes, err)
	}
	for _, bad := range []string{"", "x", "64:0", "64:x", "64:-1"} {
		if _, err := ParseSizes(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestSizes(t *testing.T) {
	s := NewSizes([]Size{{64, 9}, {4096, 1}})
	rng := rand.New(rand.NewPCG(1, 2))
	seen := make(map[int]int)
	for range 10_000 {
		seen[s.Pick(rng)]++
	}
	if s.Most() != 4096 || seen[4096] < 900 || seen[4096] > 1100 || seen[64]+seen[4096] != 10_000 {
		t.Errorf("%v", seen)
	}
}

func TestQueue(t *testing.T) {
	var q Queue
	next, first := int64(0), int64(0)
	for round := range 1000 {
		for range round % 7 {
			q.Push(next)
			next++
		}
		for range round % 5 {
			if q.Len() == 0 {
				break
			}
			if q.First() != first {
				t.Fatalf("%d is first, want %d", q.First(), first)
			}
			q.Pop()
			first++
		}
		if int64(q.Len()) != next-first {
			t.Fatalf("%d wait, want %d", q.Len(), next-first)
		}
	}
}
