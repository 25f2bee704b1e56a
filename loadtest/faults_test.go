package loadtest

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/loadtest/internal/ledger"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// gnet starts a worker pool when it is imported, and never stops it.
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

// long marks a test that takes a second or more. go test -short skips it.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes a second or more: run it without -short")
	}
}

// startEngine runs a real node until the test ends.
func startEngine(t *testing.T, cfg engine.Config) (addr string) {
	t.Helper()
	return runEngine(t, cfg).Addr().String()
}

func runEngine(t *testing.T, cfg engine.Config) *engine.Engine {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.HelloTimeout == 0 {
		cfg.HelloTimeout = time.Minute // however busy the machine is
	}
	if cfg.Advertise == "" {
		cfg.Advertise = "127.0.0.1:1" // so that a driver does not find the way around a proxy
	}
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
	})
	select {
	case <-e.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("node: %v", err)
	}
	return e
}

func mustRun(t *testing.T, cfg Config) *Report {
	t.Helper()
	report, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// nth forwards every frame except the nth of a kind in one direction, counted over all connections.
// It gives that frame to f.
func nth(n int, kind codec.Kind, toNode bool, f func(p *proxy, conn int, frame []byte) [][]byte) tamper {
	seen := 0
	return func(p *proxy, conn int, dir bool, k codec.Kind, frame []byte) [][]byte {
		if k == kind && dir == toNode {
			if seen++; seen == n {
				return f(p, conn, frame)
			}
		}
		return [][]byte{frame}
	}
}

func body(frame []byte) []byte { return frame[codec.PrefixLen:] }

func decodeDeliver(t *testing.T, frame []byte) (f codec.Deliver) {
	if err := codec.DecodeDeliver(body(frame), &f); err != nil {
		t.Error(err)
	}
	return f
}

func drop(*proxy, int, []byte) [][]byte { return nil }

func twice(_ *proxy, _ int, frame []byte) [][]byte { return [][]byte{frame, frame} }

// swap holds the nth deliver until the next deliver from the same ID to the same ID has passed.
func swap(t *testing.T, n int) tamper {
	var held []byte
	seen := 0
	return func(p *proxy, conn int, toNode bool, kind codec.Kind, frame []byte) [][]byte {
		if kind != codec.KindDeliver {
			return [][]byte{frame}
		}
		if seen++; seen == n {
			held = frame
			return nil
		}
		if held != nil {
			a, b := decodeDeliver(t, held), decodeDeliver(t, frame)
			if bytes.Equal(a.To, b.To) && bytes.Equal(a.From, b.From) {
				first := held
				held = nil
				return [][]byte{frame, first}
			}
		}
		return [][]byte{frame}
	}
}

func forge(seq uint64, code codec.Code) []byte {
	return codec.AppendOutcome(nil, &codec.Outcome{Seq: seq, Code: code})
}

// forgeReport sends the sender of the nth deliver a false report that it was not delivered.
func forgeReport(t *testing.T, n int) tamper {
	connOf := make(map[string]int) // by ID
	seen := 0
	return func(p *proxy, conn int, toNode bool, kind codec.Kind, frame []byte) [][]byte {
		switch kind {
		case codec.KindSend:
			var f codec.Send
			if err := codec.DecodeSend(body(frame), &f); err != nil {
				t.Error(err)
			}
			connOf[string(f.From)] = conn
		case codec.KindDeliver:
			if seen++; seen == n {
				f := decodeDeliver(t, frame)
				var s ledger.Stamp
				s.Read(f.Payload)
				p.toClient(connOf[string(f.From)], forge(s.Seq, codec.CodeOverflow))
			}
		}
		return [][]byte{frame}
	}
}

// TestEveryFaultIsCaught breaks each promise once, between driver and node. The ledger must find
// exactly that fault.
func TestEveryFaultIsCaught(t *testing.T) {
	long(t)
	node := startEngine(t, engine.Config{Loops: 1, DefaultTTL: 500 * time.Millisecond})
	rewrite := func(change func(*codec.Deliver)) func(*proxy, int, []byte) [][]byte {
		return func(_ *proxy, _ int, frame []byte) [][]byte {
			f := decodeDeliver(t, frame)
			f.Payload = bytes.Clone(f.Payload)
			change(&f)
			return [][]byte{codec.AppendDeliver(nil, &f)}
		}
	}
	for _, c := range []struct {
		name   string
		noAck  bool
		tamper tamper
		want   Faults
	}{
		{"untouched", false, nth(-1, 0, false, nil), Faults{}},
		{"untouched", true, nth(-1, 0, false, nil), Faults{}},

		{"dropped outcome", false, nth(20, codec.KindOutcome, false, drop), Faults{Missing: 1}},
		{"dropped send", true, nth(20, codec.KindSend, true, drop), Faults{Missing: 1}},
		{"dropped deliver", true, nth(20, codec.KindDeliver, false, drop), Faults{Missing: 1}},
		{"dropped deliver, truthful outcome", false, nth(20, codec.KindDeliver, false, drop), Faults{}},
		{"dropped send, forged ack", false, nth(20, codec.KindSend, true, func(p *proxy, conn int, frame []byte) [][]byte {
			var f codec.Send
			if err := codec.DecodeSend(body(frame), &f); err != nil {
				t.Error(err)
			}
			p.toClient(conn, forge(f.Seq, codec.CodeAcked))
			return nil
		}), Faults{FalseAcked: 1}},
		{"outcome turned into no_route", false, nth(20, codec.KindOutcome, false, func(_ *proxy, _ int, frame []byte) [][]byte {
			var f codec.Outcome
			if err := codec.DecodeOutcome(body(frame), &f); err != nil {
				t.Error(err)
			}
			return [][]byte{forge(f.Seq, codec.CodeNoRoute)}
		}), Faults{FalseUndelivered: 1}},
		{"forged failure report", true, forgeReport(t, 20), Faults{FalseUndelivered: 1}},
		{"duplicated outcome", false, nth(20, codec.KindOutcome, false, twice), Faults{DoubleOutcome: 1}},
		{"outcome of nothing", false, nth(20, codec.KindOutcome, false, func(p *proxy, conn int, frame []byte) [][]byte {
			return [][]byte{frame, forge(1<<40, codec.CodeAcked)}
		}), Faults{DoubleOutcome: 1}},
		{"duplicated deliver", false, nth(20, codec.KindDeliver, false, twice), Faults{Duplicated: 1}},
		{"duplicated deliver", true, nth(20, codec.KindDeliver, false, twice), Faults{Duplicated: 1}},
		{"swapped delivers", false, swap(t, 20), Faults{Reordered: 1}},
		{"swapped delivers", true, swap(t, 20), Faults{Reordered: 1}},
		{"deliver to another session", false, nth(20, codec.KindDeliver, false, func(p *proxy, conn int, frame []byte) [][]byte {
			p.toAnother(conn, frame)
			return nil
		}), Faults{Misrouted: 1}},
		{"deliver to another ID", false, nth(20, codec.KindDeliver, false, rewrite(func(f *codec.Deliver) {
			f.To = []byte("somebody")
		})), Faults{Misrouted: 1}},
		{"flipped bit", false, nth(20, codec.KindDeliver, false, rewrite(func(f *codec.Deliver) {
			f.Payload[len(f.Payload)-1] ^= 1
		})), Faults{Corrupted: 1}},
		{"another sender", false, nth(20, codec.KindDeliver, false, rewrite(func(f *codec.Deliver) {
			f.From = []byte("somebody")
		})), Faults{Corrupted: 1}},
	} {
		name := c.name + map[bool]string{true: ", no ack"}[c.noAck]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, node, c.tamper)
			cfg := Config{Nodes: []string{p.addr}, Conns: 4, Window: 4, NoAck: c.noAck,
				Warmup: -1, Grace: 2 * time.Second}
			report := runUntil(t, cfg, func(s Snapshot) bool { return s.Delivered > 1000 })
			if report.Faults != c.want {
				t.Errorf("faults %+v,\n  want %+v", report.Faults, c.want)
			}
			code, why := report.Verdict()
			if want := (c.want != Faults{}); want != (code == ExitLedger) {
				t.Errorf("exit code %d: %s", code, why)
			}
			if c.want == (Faults{}) && (code != ExitOK || report.Delivered == 0) {
				t.Errorf("exit code %d: %s\n%+v", code, why, report)
			}
		})
	}
}

// TestFalseNoIsCaught waits until all IDs have been bound for long. Then it forges an outcome: that
// the receiver's ID is not bound, or that the sender may not send from its own ID.
func TestFalseNoIsCaught(t *testing.T) {
	long(t)
	for code, want := range map[codec.Code]Faults{
		codec.CodeNoRoute: {FalseNoRoute: 1},
		codec.CodeDenied:  {FalseDenied: 1},
	} {
		for _, driver := range []Driver{DriverRelay, DriverSDK} {
			t.Run(fmt.Sprintf("%v, %s", code, driver), func(t *testing.T) {
				t.Parallel()
				node := startEngine(t, engine.Config{Loops: 1})
				var begin time.Time // of sending: all IDs are bound
				done := false
				p := startProxy(t, node, func(p *proxy, conn int, _ bool, kind codec.Kind, frame []byte) [][]byte {
					if kind == codec.KindSend && begin.IsZero() {
						begin = time.Now()
					}
					if kind != codec.KindSend || done || time.Since(begin) < 2*ledger.BindSettle {
						return [][]byte{frame}
					}
					done = true
					var f codec.Send
					if err := codec.DecodeSend(body(frame), &f); err != nil {
						t.Error(err)
					}
					p.toClient(conn, forge(f.Seq, code))
					return nil
				})
				r := mustRun(t, Config{Nodes: []string{p.addr}, Driver: driver, Conns: 4, Warmup: -1, Duration: 2 * time.Second})
				if r.Faults != want {
					t.Errorf("faults %+v, want %+v", r.Faults, want)
				}
			})
		}
	}
}

// TestReassert makes a node request all bindings again. The bindings come under their epochs, in as
// many frames as they need. The run must have no other effect of it.
func TestReassert(t *testing.T) {
	long(t)
	t.Parallel()
	const ids, perFrame = 40, 16
	node := startEngine(t, engine.Config{Loops: 1, MaxIDs: perFrame})
	delivers, again, fresh := 0, 0, 0
	p := startProxy(t, node, func(p *proxy, conn int, _ bool, kind codec.Kind, frame []byte) [][]byte {
		switch kind {
		case codec.KindDeliver:
			if delivers++; delivers == 100 {
				p.toClient(firstSession, codec.AppendReassert(nil, 10))
			}
		case codec.KindBind:
			var f codec.Bind
			if err := codec.DecodeBind(body(frame), perFrame, &f); err != nil {
				t.Error(err)
			}
			for v, ok := f.IDs.Next(); ok; v, ok = f.IDs.Next() {
				switch {
				case v.Epoch == 0:
					fresh++
				case conn == firstSession:
					again++
				default:
					t.Errorf("connection %d was not asked", conn)
				}
			}
		}
		return [][]byte{frame}
	})
	r := mustRun(t, Config{Nodes: []string{p.addr}, Conns: 4, IDsPerConn: ids, Warmup: -1, Duration: 2 * time.Second})
	checkClean(t, r)
	if again != ids || fresh != 4*ids {
		t.Errorf("%d IDs were bound and %d again, want %d and %d", fresh, again, 4*ids, ids)
	}
}

// TestSilentNode lets one connection hear nothing more, while nobody closes it. The driver must
// give it up and make a new one.
func TestSilentNode(t *testing.T) {
	long(t)
	t.Parallel()
	node := startEngine(t, engine.Config{Loops: 1})
	delivers := 0
	p := startProxy(t, node, func(p *proxy, conn int, toNode bool, kind codec.Kind, frame []byte) [][]byte {
		if kind == codec.KindDeliver {
			delivers++
		}
		if delivers > 100 && conn == firstSession && !toNode {
			return nil
		}
		return [][]byte{frame}
	})
	r := mustRun(t, Config{Nodes: []string{p.addr}, Conns: 4, Window: 4, Warmup: -1, Duration: 6 * time.Second})
	if code, why := r.Verdict(); code != ExitOK || r.LostConnections != 1 || r.DownConnections != 0 || r.Outcomes["lost"] == 0 {
		t.Errorf("exit code %d (%s): %+v", code, why, r)
	}
	if silence := r.MaxSilence; silence < 2 {
		t.Errorf("the longest silence is %s", silence)
	}
}
