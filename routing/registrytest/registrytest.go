// Package registrytest is the contract of [routing.Registry] as a test suite. Every
// implementation runs it:
//
//	func TestContract(t *testing.T) {
//		registrytest.Run(t, 100_000, func(t *testing.T, clock func() time.Time) routing.Registry {
//			return routing.NewMemory(routing.MemoryConfig{Clock: clock})
//		})
//	}
//
// The suite uses the interface only, and IDs and sessions of its own, so the registries
// it gets may share one store. Its own test proves that it fails on bad registries.
package registrytest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/routing"
)

// Run tests the registries that open makes, one for each case. They mint from the clock
// given, which steps forth and back. Histories is the number of random histories for
// the case that lets an ID move while old messages about it arrive late; one takes some
// 15 operations, one after the other. The case logs what it has played.
//
// The suite closes what it opened.
func Run(t *testing.T, histories int, open func(t *testing.T, clock func() time.Time) routing.Registry) {
	for _, c := range cases(histories) {
		t.Run(c.name, func(t *testing.T) {
			clock := newClock()
			registry := open(t, clock.Now)
			if err := c.check(newSuite(t, registry, clock)); err != nil {
				t.Error(err)
			}
			if err := registry.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// testCase is one clause of the contract. It returns an error instead of failing a test,
// so that the suite's own test can see it fail.
type testCase struct {
	name  string
	check func(*suite) error
}

// suite is what a case works with: a registry, its clock, and names nobody else has.
type suite struct {
	routing.Registry
	ctx   context.Context
	logf  func(format string, args ...any)
	clock *clock
	run   routing.SessionID // makes the IDs of this suite its own
	ids   int
}

func newSuite(t testing.TB, registry routing.Registry, clock *clock) *suite {
	return &suite{Registry: registry, ctx: t.Context(), logf: t.Logf, clock: clock, run: routing.NewSessionID()}
}

func (s *suite) newID() string {
	s.ids++
	return fmt.Sprintf("%016x-%06d", s.run.Short(), s.ids) // 23 bytes
}

// The methods below ask for one ID.

func (s *suite) bind(op routing.BindOp) (routing.BindResult, error) {
	results, err := s.Bind(s.ctx, []routing.BindOp{op})
	return one(results, err, "Bind")
}

func (s *suite) unbind(op routing.UnbindOp) (bool, error) {
	results, err := s.Unbind(s.ctx, []routing.UnbindOp{op})
	result, err := one(results, err, "Unbind")
	return result.Removed, err
}

func (s *suite) lookup(id string) (routing.Binding, error) {
	results, err := s.Lookup(s.ctx, []string{id})
	result, err := one(results, err, "Lookup")
	return result.Binding, err
}

func one[R any](results []R, err error, what string) (R, error) {
	if err == nil && len(results) != 1 {
		err = fmt.Errorf("%s of one ID: %d results", what, len(results))
	}
	if err != nil {
		var zero R
		return zero, err
	}
	return results[0], nil
}

// The methods below also say what must come out.

// mustMint binds id for session by an application's bind and returns the binding.
func (s *suite) mustMint(id string, session routing.SessionID, expect routing.Binding) (routing.Binding, error) {
	result, err := s.bind(routing.BindOp{ID: id, Session: session, Expect: expect})
	if err == nil && result.Status != routing.Bound {
		err = fmt.Errorf("bind of %q: %+v, want it bound", id, result)
	}
	return routing.Binding{Session: session, Epoch: result.Epoch}, err
}

func (s *suite) wantBind(op routing.BindOp, want routing.BindResult) error {
	got, err := s.bind(op)
	return expect(got, want, err, "bind %+v", op)
}

func (s *suite) wantUnbind(id string, b routing.Binding, want bool) error {
	got, err := s.unbind(routing.UnbindOp{ID: id, Session: b.Session, Epoch: b.Epoch})
	return expect(got, want, err, "unbind %q of %v", id, b)
}

func (s *suite) wantHolder(id string, want routing.Binding) error {
	got, err := s.lookup(id)
	return expect(got, want, err, "lookup of %q", id)
}

func (s *suite) wantDetach(session routing.SessionID, p routing.Presence, want int) error {
	got, err := s.Detach(s.ctx, session, p)
	return expect(got, want, err, "entries left after detach of %+v", p)
}

func (s *suite) wantEnd(op routing.EndOp, want bool) error {
	got, err := s.EndSession(s.ctx, op)
	return expect(got, want, err, "end of session %+v", op)
}

func expect[V comparable](got, want V, err error, format string, args ...any) error {
	if err == nil && got != want {
		err = fmt.Errorf("%s: got %+v, want %+v", fmt.Sprintf(format, args...), got, want)
	}
	return err
}

// all runs steps until one fails, and names it by its number.
func all(steps ...func() error) error {
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// clock is a clock that only its owner moves. Now may be called from any goroutine.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.micros.Store(time.Now().UnixMicro())
	return c
}

func (c *clock) Now() time.Time        { return time.UnixMicro(c.micros.Load()) }
func (c *clock) Step(by time.Duration) { c.micros.Add(by.Microseconds()) }
func (c *clock) epoch() uint64         { return uint64(c.micros.Load()) }
