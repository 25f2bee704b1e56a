package compare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/loadtest"
	"distmsg/loadtest/floor"
	"distmsg/loadtest/internal/natstest"
	"distmsg/loadtest/result"
)

// serverVariable makes this test program a server: the floor, or a small nats-server.
const serverVariable = "COMPARE_TEST_SERVER"

func TestMain(m *testing.M) {
	name := os.Getenv(serverVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if slices.Contains(os.Args, "--version") {
		fmt.Println("nats-server: v0.1.2")
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if len(os.Args) > 1 && os.Args[1] == floorServer {
		fmt.Printf("clients=%s\n", ln.Addr())
		panic(floor.Serve(context.Background(), ln))
	}
	fmt.Printf("Listening for client connections on %s\n", ln.Addr())
	natstest.Serve(ln, nil)
}

// TestCompare compares all four servers for a moment. Without a warm-up, the first messages count,
// however late a busy machine delivers them.
func TestCompare(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Setenv(serverVariable, "yes")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	s, err := Run(t.Context(), Config{
		Shapes: []string{"acked-50", "nodes-acked-50", "fanout"}, Rounds: 1, Duration: 100 * time.Millisecond, Warmup: -1, Conns: 20,
		Programs: Programs{Floor: []string{self, floorServer}, NATS: self}, Progress: &lines,
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, why := s.Verdict(); code != result.ExitOK {
		t.Errorf("exit code %d: %s", code, why)
	}
	if len(s.Shapes) != 3 || len(s.Servers) != 4 || s.Servers[3] != (result.Server{Name: "nats", Version: "0.1.2"}) {
		t.Fatalf("shapes %v at servers %v", s.Shapes, s.Servers)
	}
	for _, shape := range s.Shapes {
		var servers []string
		for _, e := range shape.Entries {
			servers = append(servers, e.Server)
			if e.Rate == nil || *e.Rate == 0 || e.P99 == nil || len(e.All) != 1 {
				t.Errorf("%s at %s: %+v", shape.Name, e.Server, e)
			}
		}
		want := Peers()
		if shape.Name == "nodes-acked-50" {
			want = []string{node, twoNodes}
		}
		if !slices.Equal(servers, want) || shape.Ratios[0].Aim != 0 {
			t.Errorf("%s was measured at %v, ratios %v", shape.Name, servers, shape.Ratios)
		}
	}
	if n := strings.Count(lines.String(), "round 1 of 1"); n != 10 {
		t.Errorf("%d runs were reported, want 10:\n%s", n, &lines)
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		shapes, peers string
		want          string // name: servers: ratios
	}{
		{"acked-50", "floor,node,redis,nats", "acked-50: floor node redis nats: node/floor"},
		{"acked-50", "node,redis", "acked-50: node redis:"},
		{"tls", "node,nats", "tls-acked-1: node node, TLS nats, TLS: node, TLS/node node, TLS/nats, TLS; " +
			"tls-send-50: node node, TLS nats, TLS: node, TLS/node node, TLS/nats, TLS; tls-acked-50: node node, TLS nats, TLS: node, TLS/node node, TLS/nats, TLS"},
		{"loops,acked-1", "node,redis", "acked-1: node redis:; loops: node node, 2 loops node, 4 loops: node, 2 loops/node node, 4 loops/node"},
		{"loops", "redis", "bad configuration: shapes loops have no server in peers redis"},
		{"fast", "redis", "bad configuration: shapes has \"fast\""},
		{"all", "kafka", "bad configuration: peers has \"kafka\", want floor, node, redis, nats"},
	} {
		chosen, err := choose(strings.Split(c.shapes, ","), strings.Split(c.peers, ","))
		var got []string
		for _, s := range chosen {
			text := s.name + ": " + strings.Join(s.servers, " ") + ":"
			for _, r := range s.ratios {
				text += " " + r.of + "/" + r.to
			}
			got = append(got, text)
		}
		text := strings.Join(got, "; ")
		if err != nil {
			text = err.Error()
		}
		if text != c.want && (err == nil || !strings.HasPrefix(text, c.want)) {
			t.Errorf("--shapes %s --peers %s:\n%s\nwant\n%s", c.shapes, c.peers, text, c.want)
		}
	}
}

// TestMissing says what to do about a program that is not there.
func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range []struct {
		peer, say string
		programs  Programs
	}{
		{"redis", "--redis-server", Programs{}},
		{"node", "--relay", Programs{}},
		{"nats", "--nats-server", Programs{}},
		{"node", "no-such-file", Programs{Relay: "no-such-file"}},
	} {
		_, err := Run(t.Context(), Config{Shapes: []string{"acked-1"}, Peers: []string{c.peer}, Programs: c.programs})
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("without %s: %v, want %s", c.peer, err, c.say)
		}
	}
}

// TestHalfRate computes a rate from that of the node in the same round.
func TestHalfRate(t *testing.T) {
	chosen, err := choose([]string{"acked-50", "half-rate"}, Peers())
	if err != nil {
		t.Fatal(err)
	}
	c := &contest{shapes: chosen, runs: [][][]*loadtest.Report{make([][]*loadtest.Report, len(Peers()))}}
	for i, server := range Peers() {
		rates := map[string][]float64{node: {3000, 4000}}[server]
		for round := range 2 {
			r := new(loadtest.Report)
			if rates != nil {
				r.Rate = &rates[round]
			}
			c.runs[0][i] = append(c.runs[0][i], r)
		}
	}
	for round, want := range []float64{1500, 2000} {
		if load, err := c.load(&c.shapes[1], round); err != nil || load.Rate != want || load.Window != 0 {
			t.Errorf("round %d: rate %g, window %d (%v), want %g and 0", round, load.Rate, load.Window, err, want)
		}
	}
}

func TestHalfRateNeedsTheRate(t *testing.T) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), Config{Shapes: []string{"half-rate"}, Peers: []string{"redis"}, Programs: Programs{Redis: program}})
	if !errors.Is(err, loadtest.ErrUsage) {
		t.Errorf("half-rate without the rate: %v", err)
	}
}
