package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"distmsg/codec"
)

// limiter is a node's token bucket, as the simplest code has it.
type limiter struct {
	rate, burst, tokens float64
	at                  time.Duration
}

// take returns 0, or how long to wait.
func (l *limiter) take(now time.Duration) time.Duration {
	l.tokens = min(l.burst, l.tokens+l.rate*(now-l.at).Seconds())
	l.at = now
	if l.tokens <= 0 {
		return max(time.Millisecond, time.Duration(-l.tokens/l.rate*float64(time.Second)).Truncate(time.Millisecond)+time.Millisecond)
	}
	l.tokens--
	return 0
}

// Sessions that would send as fast as they can find the rate that the node allows, alone and with
// others that share it. Time is simulated.
func TestPacerFindsTheRate(t *testing.T) {
	for _, tc := range []struct {
		rate, burst float64
		sessions    int
	}{{20, 1, 1}, {1000, 100, 1}, {1000, 100, 4}, {50_000, 50_000, 1}, {50_000, 1000, 3}} {
		node := limiter{rate: tc.rate, burst: tc.burst, tokens: tc.burst}
		sessions := make([]pacer, tc.sessions)
		type refusal struct {
			at, wait time.Duration
			of       *pacer
		}
		var coming []refusal
		idle, placed := make([]time.Duration, tc.sessions), make([]bool, tc.sessions)
		passed, refused := 0, 0
		const settle, end, step, trip = 10 * time.Second, 30 * time.Second, time.Millisecond, 2 * time.Millisecond
		for now := time.Duration(0); now < end; now += step {
			for len(coming) > 0 && coming[0].at <= now {
				coming[0].of.over(coming[0].wait, now)
				coming = coming[1:]
			}
			for i := range sessions {
				p := &sessions[i]
				for n := 0; n < 1000 && now >= idle[i]; n++ {
					if p.on.Load() && !placed[i] {
						if delay := p.reserve(1, now); delay > 0 {
							idle[i], placed[i] = now+delay, true
							break
						}
					}
					placed[i] = false
					wait := node.take(now)
					if wait > 0 {
						coming = append(coming, refusal{now + trip, wait, p})
					}
					if now < settle {
						continue
					}
					if wait > 0 {
						refused++
					} else {
						passed++
					}
				}
			}
		}
		allowed := tc.rate * (end - settle).Seconds()
		t.Logf("%+v: %d passed of %.0f, %d refused", tc, passed, allowed, refused)
		if float64(passed) < 0.6*allowed {
			t.Errorf("%+v: %d passed, %.0f are allowed", tc, passed, allowed)
		}
		if float64(refused) > 0.1*float64(passed) {
			t.Errorf("%+v: %d were refused, %d passed", tc, refused, passed)
		}
	}
}

func TestPacerEnds(t *testing.T) {
	var p pacer
	p.over(100*time.Millisecond, time.Second)
	if d := p.reserve(1, time.Second); d != 100*time.Millisecond {
		t.Errorf("waits %v", d)
	}
	if d := p.reserve(1, time.Second+paceFor+100*time.Millisecond); d != 0 || p.on.Load() {
		t.Errorf("long after the refusal it waits %v", d)
	}
}

// The session pauses by itself after the node has refused a message, and says which limit it was.
func TestSendSlowsDown(t *testing.T) {
	node := newFakeNode(t).start()
	s, c := attachFake(t, node, Config{})
	results := make(chan error, 2)
	send := func(ctx context.Context) {
		_, err := s.Send(ctx, Message{To: "you", From: "me"})
		results <- err
	}
	go send(t.Context())
	f := c.expectSend()
	c.put(codec.AppendOutcome(nil, &codec.Outcome{Seq: f.Seq, Code: codec.CodeOverflow, Reason: []byte("limit identity-messages: try again in 50000 ms")}))
	var e *Error
	if err := <-results; !errors.As(err, &e) {
		t.Fatal(err)
	}
	if name, wait := e.Limit(); name != "identity-messages" || wait != 50*time.Second {
		t.Errorf("limit %q for %v", name, wait)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	go send(ctx)
	if err := <-results; !errors.Is(err, ErrExpired) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a send within the pause: %v", err)
	}
	if sent := s.Stats().Sent; sent != 1 {
		t.Errorf("%d sends were written", sent)
	}
}
