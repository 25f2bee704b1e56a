package agents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"distmsg/loadtest"
	"distmsg/loadtest/internal/traffic"
	"distmsg/loadtest/result"
)

// fake serves what a test wants an agent to say.
func fake(t *testing.T, answer http.HandlerFunc) (addr string) {
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func says(h hello) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(h) }
}

// TestWhoAnswers wants errors that name the agent and say what is there instead.
func TestWhoAnswers(t *testing.T) {
	agent := NewAgent(AgentConfig{Token: "the right token", Log: t.Logf})
	for name, c := range map[string]struct{ addr, says string }{
		"a later version":    {fake(t, says(hello{Version: version + 1, Schema: result.Schema, Program: "loadtest v9"})), fmt.Sprintf("loadtest v9 and speaks version %d", version+1)},
		"other reports":      {fake(t, says(hello{Version: version, Schema: "distmsg-loadtest/0"})), "with reports of distmsg-loadtest/0"},
		"no agent":           {fake(t, http.NotFound), "not the address of an agent"},
		"JSON of no agent":   {fake(t, says(hello{})), "not the address of an agent"},
		"the wrong token":    {fake(t, agent.ServeHTTP), "wants the token"},
		"nobody":             {"127.0.0.1:1", "cannot be reached"},
		"a cut-off response": {fake(t, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }), "has died or does not answer"},
	} {
		_, err := Run(t.Context(), Config{Agents: []string{c.addr}, Token: "another token"}, loadtest.Config{Nodes: []string{"x:1"}, Conns: 2})
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.addr) {
			t.Errorf("%s at %s: %v, want %q", name, c.addr, err, c.says)
		}
	}
}

// TestRefusals sends an agent what it must not do.
func TestRefusals(t *testing.T) {
	agent := NewAgent(AgentConfig{Log: t.Logf})
	for name, c := range map[string]struct {
		path, body string
		header     http.Header
		want       int
	}{
		"a page in a browser":  {pathRun, fmt.Sprintf(`{"agent_version":%d}`, version), http.Header{"Origin": {"http://example.com"}}, http.StatusForbidden},
		"another version":      {pathRun, fmt.Sprintf(`{"agent_version":%d}`, version-1), nil, http.StatusBadRequest},
		"a field of a later":   {pathRun, `{"agent_version":2,"load":{"Wormholes":2}}`, nil, http.StatusBadRequest},
		"an order for no run":  {pathStart, `{"run":"x"}`, nil, http.StatusConflict},
		"an order, no JSON":    {pathStop, `run`, nil, http.StatusBadRequest},
		"something else":       {"/", ``, nil, http.StatusNotFound},
		"a job that is a book": {pathRun, `{"run":"` + strings.Repeat("x", maxJob) + `"}`, nil, http.StatusBadRequest},
	} {
		r := httptest.NewRequest(http.MethodPost, c.path, strings.NewReader(c.body))
		for k, v := range c.header {
			r.Header[k] = v
		}
		w := httptest.NewRecorder()
		agent.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.want)
		}
	}
}

// TestClock has an agent whose clock is an hour ahead. What the coordinator finds is right up to
// the bound that it gives.
func TestClock(t *testing.T) {
	c := newClock()
	addr := fake(t, func(w http.ResponseWriter, r *http.Request) {
		says(hello{Version: version, Schema: result.Schema, Clock: c.now().Add(time.Hour).UnixNano()})(w, r)
	})
	l := newLink(addr, "", nil, c)
	defer l.close()
	if err := l.meet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if wrong := l.first.offset - time.Hour; wrong.Abs() > l.first.bound || l.first.bound <= 0 {
		t.Errorf("the offset is %v, and wrong by %v: more than %v", l.first.offset, wrong, l.first.bound)
	}
}

// TestSilentAgent has an agent that accepts the job and says nothing more.
func TestSilentAgent(t *testing.T) {
	over := make(chan struct{})
	addr := fake(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"beat":true}`)
		w.(http.Flusher).Flush()
		<-over
	})
	defer close(over)
	l := newLink(addr, "", nil, newClock())
	defer l.close()
	l.patience = 50 * time.Millisecond
	err := l.follow(t.Context(), &job{}, func(*event) {})
	if err == nil || !strings.Contains(err.Error(), "agent "+addr) || !strings.Contains(err.Error(), "nothing came for 50ms") {
		t.Error(err)
	}
}

func TestBadRuns(t *testing.T) {
	nodes := loadtest.Config{Nodes: []string{"x:1"}, Conns: 2}
	secret, few := nodes, nodes
	secret.CredentialsFile, few.Conns = "token", 1
	two := []string{"a:1", "b:1"}
	for name, c := range map[string]struct {
		agents []string
		load   loadtest.Config
	}{
		"no agent":       {nil, nodes},
		"no port":        {[]string{"a"}, nodes},
		"twice":          {[]string{"a:1", "a:1"}, nodes},
		"no node":        {two, loadtest.Config{Conns: 2}},
		"a secret":       {two, secret},
		"no connections": {two, few},
	} {
		if _, err := Run(t.Context(), Config{Agents: c.agents}, c.load); !errors.Is(err, loadtest.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestShares divides a load. The shares make the whole, and connections begin at the nodes in turn.
func TestShares(t *testing.T) {
	load := loadtest.Config{Nodes: []string{"a", "b", "c"}, Conns: 8, Rate: 800, Seed: math.MaxUint64, Churn: loadtest.Churn{Moves: 16},
		Stages: []loadtest.Stage{{From: 8, To: 80, For: time.Second}}}
	var conns int
	var rate, moves, to float64
	seeds := map[uint64]bool{0: true}
	for i := range 3 {
		s := share(&load, i, 3)
		if first := s.Nodes[0]; first != load.Nodes[conns%3] || len(s.Nodes) != 3 {
			t.Errorf("share %d begins at %s of %v after %d connections", i, first, s.Nodes, conns)
		}
		if seeds[s.Seed] {
			t.Errorf("share %d has the seed %d, as another one, or none", i, s.Seed)
		}
		seeds[s.Seed] = true
		conns, rate, moves, to = conns+s.Conns, rate+s.Rate, moves+s.Churn.Moves, to+s.Stages[0].To
	}
	if conns != 8 || math.Abs(rate-800) > 1e-6 || math.Abs(moves-16) > 1e-6 || math.Abs(to-80) > 1e-6 || load.Stages[0].To != 80 {
		t.Errorf("%d connections, %g messages and %g moves a second, a stage to %g; of %+v", conns, rate, moves, to, load)
	}
}

// TestMerge has two agents whose runs have other clocks, and one of which is held up for two
// seconds. Each second of the merged series has what happened in it, and nothing is lost.
func TestMerge(t *testing.T) {
	var told []result.Point
	var printed bytes.Buffer
	m := newMerger(2, func(s *loadtest.Sample) { told = append(told, s.Point) }, func(line string) { printed.WriteString(line) })
	m.begin = 0.5
	give := func(agent int, at, length result.Seconds, done int, inFlight int) {
		measured, other := traffic.NewHistogram(), traffic.NewHistogram()
		for range done {
			_ = measured.RecordValue(int64(time.Millisecond) * int64(1+agent))
		}
		s, err := encodeSample(&loadtest.Sample{Measured: measured, Other: other, Point: result.Point{At: at, Length: length,
			Sent: uint64(done), Completed: uint64(done), Outcomes: map[string]uint64{"acked": uint64(done)}, InFlight: inFlight}})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.add(agent, s); err != nil {
			t.Fatal(err)
		}
	}
	give(0, 10, 1, 100, 1)
	give(0, 11, 1, 200, 2)
	if len(told) != 0 {
		t.Fatalf("%d seconds were passed on before all agents gave theirs", len(told))
	}
	give(1, 70, 2.01, 50, 4) // it was held up
	give(0, 12, 1, 300, 3)
	give(1, 72.01, 0.99, 70, 5)
	give(1, 73, 0.2, 5, 0) // the end
	m.finish(1)
	give(0, 13, 0.1, 7, 0)
	m.finish(0)
	m.flush()
	want := []struct {
		completed uint64
		inFlight  int
	}{{100, 1}, {250, 6}, {370, 8}, {12, 0}}
	if len(told) != len(want) || len(m.points) != len(want) {
		t.Fatalf("%d seconds: %+v", len(told), told)
	}
	for i, w := range want {
		if p := told[i]; p.Completed != w.completed || p.Outcomes["acked"] != w.completed || p.InFlight != w.inFlight {
			t.Errorf("second %d: %+v, want %+v", i, p, w)
		}
	}
	if at := told[0].At; at != 0.5 {
		t.Errorf("the series begins at %v", at)
	}
	all := traffic.NewHistogram()
	for _, h := range m.measured {
		all.Merge(h)
	}
	if n := all.TotalCount(); n != 732 || strings.Count(printed.String(), "\n") != 4 {
		t.Errorf("%d messages in the histogram; printed\n%s", n, &printed)
	}
	if l := result.LatencyOf(all); l.P50.Duration().Round(time.Millisecond) != time.Millisecond || l.P99.Duration().Round(time.Millisecond) != 2*time.Millisecond {
		t.Errorf("latencies %+v", l)
	}
}

// TestMergeWithoutTheDead has an agent that dies. The others' seconds are passed on without it, and
// nothing of it is in flight.
func TestMergeWithoutTheDead(t *testing.T) {
	m := newMerger(2, nil, func(string) {})
	give := func(agent int, at result.Seconds, inFlight int) {
		s, err := encodeSample(&loadtest.Sample{Measured: traffic.NewHistogram(), Other: traffic.NewHistogram(),
			Point: result.Point{At: at, Length: 1, Outcomes: map[string]uint64{}, InFlight: inFlight, DownConnections: inFlight, Faults: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.add(agent, s); err != nil {
			t.Fatal(err)
		}
	}
	give(0, 0, 1)
	give(1, 0, 10)
	give(1, 1, 10)
	m.lose(1)
	give(0, 1, 2)
	give(0, 2, 3)
	if len(m.points) != 3 {
		t.Fatalf("%d seconds: %+v", len(m.points), m.points)
	}
	for i, want := range []int{11, 2, 3} {
		if p := m.points[i]; p.InFlight != want || p.DownConnections != want || p.Faults != 2 {
			t.Errorf("second %d: %+v, want %d in flight, and the fault that the dead one found", i, p, want)
		}
	}
}
