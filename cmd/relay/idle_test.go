package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"distmsg/codec"
	"distmsg/internal/proc"
	"distmsg/internal/usage"
)

// What an idle connection may cost, and how far memory may creep.
const (
	idleConns     = 15_000
	idleCycles    = 10
	idleTime      = 5 * time.Second // meanwhile the node gives back what the binds took
	maxIdleKiB    = 3.0
	maxIdleGrowth = 1.2 // RSS in the last cycle, as a multiple of that in the third
)

// BenchmarkIdle opens 15,000 connections, each with a session and a bound ID, ten times over, and
// holds the node's memory to its promise once they have been idle for idleTime:
//
//	go test -run '^$' -bench Idle -benchtime 1x ./cmd/relay
func BenchmarkIdle(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	// As users run it: built, with its defaults, metrics included.
	node, err := proc.StartRelay(ctx, proc.RelayOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer node.Close()
	for b.Loop() {
		empty := rssKiB(b, node.PID())
		var atOnce, rss [idleCycles]float64
		for i := range rss {
			conns := openIdle(ctx, b, node.Addr)
			atOnce[i] = rssKiB(b, node.PID())
			time.Sleep(idleTime)
			rss[i] = rssKiB(b, node.PID())
			closeIdle(b, conns)
		}
		perConn, growth := (rss[0]-empty)/idleConns, rss[idleCycles-1]/rss[2]
		b.ReportMetric(perConn, "KiB/conn")
		b.ReportMetric((atOnce[0]-empty)/idleConns, "KiB/conn-at-once")
		b.ReportMetric(growth, "growth")
		b.Logf("RSS in KiB: %.0f without connections, then %.0f, and %v later %.0f", empty, atOnce, idleTime, rss)
		if perConn > maxIdleKiB {
			b.Errorf("%.2f KiB of RSS for an idle connection, at most %v are promised", perConn, maxIdleKiB)
		}
		if growth > maxIdleGrowth {
			b.Errorf("RSS grew by %.2f from the third cycle to the last, at most %v is promised", growth, maxIdleGrowth)
		}
	}
}

// openIdle opens connections that have said hello and bound an ID.
func openIdle(ctx context.Context, b *testing.B, addr string) []net.Conn {
	b.Helper()
	conns := make([]net.Conn, idleConns)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for i := range conns {
		group.Go(func() (err error) {
			conns[i], err = idleConn(ctx, addr, fmt.Sprintf("user-%018d", i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	return conns
}

func idleConn(ctx context.Context, addr, id string) (net.Conn, error) {
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	hello := codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version})
	bind := codec.AppendBind(nil, 1, codec.PolicyKickOld, []codec.IDEpoch{{ID: []byte(id)}})
	if err := request(nc, hello, codec.KindWelcome); err != nil {
		return nil, err
	}
	return nc, request(nc, bind, codec.KindBound)
}

// request sends a frame and reads the answer, which must be the next frame.
func request(nc net.Conn, frame []byte, want codec.Kind) error {
	if _, err := nc.Write(frame); err != nil {
		return err
	}
	answer := make([]byte, codec.PrefixLen, codec.MaxHelloFrame)
	if _, err := io.ReadFull(nc, answer); err != nil {
		return err
	}
	answer = answer[:codec.PrefixLen+codec.Missing(answer)]
	if _, err := io.ReadFull(nc, answer[codec.PrefixLen:]); err != nil {
		return err
	}
	if kind, err := codec.PeekKind(answer[codec.PrefixLen:]); err != nil || kind != want {
		return fmt.Errorf("%v came (%v), want %v", kind, err, want)
	}
	return nil
}

// closeIdle ends the sessions and waits until the node has closed the connections.
func closeIdle(b *testing.B, conns []net.Conn) {
	b.Helper()
	bye := codec.AppendBye(nil)
	for _, nc := range conns {
		if _, err := nc.Write(bye); err != nil {
			b.Fatal(err)
		}
	}
	for _, nc := range conns {
		if _, err := io.Copy(io.Discard, nc); err != nil {
			b.Fatal(err)
		}
		nc.Close()
	}
}

// rssKiB reads a process's resident memory.
func rssKiB(b *testing.B, pid int) float64 {
	b.Helper()
	rss, err := usage.RSS(pid)
	if err != nil {
		b.Fatal(err)
	}
	return float64(rss >> 10)
}
