package redis

import (
	"testing"

	"distmsg/internal/proc"
	"distmsg/routing"
)

// Where 1000 sessions are is one question. A session whose key has been spoilt costs the others
// nothing.
func TestPresences(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	r := open(t, quiet(testConfig(server.URL())))
	sessions := make([]routing.SessionID, 1000)
	for i := range sessions {
		sessions[i] = routing.NewSessionID()
	}
	if err := r.Attach(t.Context(), sessions[0], here); err != nil {
		t.Fatal(err)
	}
	if _, err := r.EndSession(t.Context(), routing.EndOp{Session: sessions[1]}); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Do(t.Context(), "SET", r.keys.session(sessions[2]), "no hash"); err != nil {
		t.Fatal(err)
	}
	var count trips
	r.client.AddHook(&count)
	all, err := r.Presences(t.Context(), sessions)
	if err != nil {
		t.Fatal(err)
	}
	if got := count.n.Load(); got != 1 {
		t.Errorf("%d round trips, want 1", got)
	}
	for i, p := range all {
		switch {
		case i == 0 && (len(p.Nodes) != 1 || p.Nodes[0] != here || p.Dead || p.Unknown),
			i == 1 && (!p.Dead || p.Unknown),
			i == 2 && !p.Unknown,
			i > 2 && (p.Unknown || p.Dead || len(p.Nodes) > 0):
			t.Errorf("session %d: %+v", i, p)
		}
	}
	if _, err := r.Presences(t.Context(), sessions[2:3]); err == nil {
		t.Error("nothing could be found out, and that is no error")
	}
}
