package loadtest

import (
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"distmsg/discovery"
	"distmsg/engine"
	"distmsg/internal/proc"
)

// closedAddr returns an address where nobody listens.
func closedAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// mute accepts connections and sends nothing, like a stopped node.
func mute(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// TestNodesThatDoNotAnswer has a dead node and a stopped node in the membership. The run must go on
// with the third node and report the other two.
func TestNodesThatDoNotAnswer(t *testing.T) {
	long(t)
	t.Parallel()
	node := startEngine(t, engine.Config{Loops: 1})
	dead, stopped := closedAddr(t), mute(t)
	for _, driver := range []Driver{DriverRelay, DriverSDK} {
		members, err := discovery.Static(dead, node, stopped)
		if err != nil {
			t.Fatal(err)
		}
		cfg := quick
		cfg.Driver, cfg.Membership = driver, members
		r := mustRun(t, cfg)
		checkClean(t, r)
		if !slices.Equal(r.Config.Nodes, []string{node}) || len(r.Silent) != 2 ||
			!strings.Contains(r.Silent[0], dead) || !strings.Contains(r.Silent[1], stopped) {
			t.Errorf("%s: began with %q, without %q", driver, r.Config.Nodes, r.Silent)
		}
	}
	members, err := discovery.Static(dead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), Config{Membership: members}); err == nil || !strings.Contains(err.Error(), "none of them answers") {
		t.Errorf("with dead nodes only: %v", err)
	}
}

// TestNoRelayThere gives the run the addresses of other servers.
func TestNoRelayThere(t *testing.T) {
	long(t)
	t.Parallel()
	redis, err := proc.StartRedis(t.Context(), proc.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, c := range []struct{ addr, says string }{
		{redis.Addr, "answers as Redis does"},
		{web.Listener.Addr().String(), "speaks HTTP"},
		{mute(t), "does not answer"},
		{closedAddr(t), "connection refused"},
	} {
		asking.Go(func() {
			_, err := Run(t.Context(), Config{Nodes: []string{c.addr}})
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Count(err.Error(), c.addr) != 1 {
				t.Errorf("%s: %v, want one mention of the address and %q", c.addr, err, c.says)
			}
		})
	}
}
