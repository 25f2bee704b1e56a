package redis

import (
	"os"
	"strings"
	"testing"
	"time"

	"distmsg/internal/proc"
	"distmsg/routing"
)

// The user that docs/registry.md tells operators to create may do all that a registry does, and
// nothing that it does not.
func TestPermissions(t *testing.T) {
	t.Parallel()
	single := startRedis(t, proc.RedisOptions{})
	several := startCluster(t)
	lines := documentedUser(t)
	t.Run("standalone", func(t *testing.T) {
		testPermissions(t, single.URL()+"/1", lines[:1], single)
	})
	t.Run("cluster", func(t *testing.T) {
		testPermissions(t, several.URL(), lines, several.Nodes...)
	})
}

// documentedUser returns the commands for a server, and the one more for a Redis Cluster.
func documentedUser(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "ACL SETUSER") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 {
		t.Fatalf("docs/registry.md: %q", lines)
	}
	return lines
}

func testPermissions(t *testing.T, url string, user []string, servers ...*proc.Redis) {
	for _, server := range servers {
		command(t, server, user...)
		command(t, server, "CONFIG RESETSTAT")
	}
	config := testConfig(url)
	config.Username, config.Password, config.Fingerprint = "distmsg", "PASSWORD", "f"
	config.ResumeWindow, config.Timeout = 100*time.Millisecond, time.Second
	useEverything(t, open(t, config))

	used := make(map[string]bool)
	for _, server := range servers {
		if denied, err := server.Do(t.Context(), "ACL", "LOG"); err != nil || denied != "" {
			t.Errorf("denied: %s, %v", denied, err)
		}
		stats, err := server.Do(t.Context(), "INFO", "commandstats")
		if err != nil {
			t.Fatal(err)
		}
		for name := range parseInfo(stats) {
			used["+"+strings.TrimPrefix(name, "cmdstat_")] = true
		}
	}
	for _, word := range strings.Fields(strings.Join(user, " ")) {
		database := word == "+select" && strings.HasPrefix(url, "redis-cluster") // has but one
		resharding := word == "+asking"                                          // is not going on
		if strings.HasPrefix(word, "+") && !used[word] && !database && !resharding {
			t.Errorf("%s is not needed", word)
		}
	}
}

// useEverything makes a registry do all it can. What is absent is for the sweep.
func useEverything(t *testing.T, r *Registry) {
	absent, present := routing.NewSessionID(), routing.NewSessionID()
	if err := r.Attach(t.Context(), present, here); err != nil {
		t.Fatal(err)
	}
	bindAll(t, r, absent, "absent")
	bound := bindAll(t, r, present, "anna", "bert")
	if _, err := r.Presence(t.Context(), present); err != nil {
		t.Error(err)
	}
	if result, err := lookup(r, "anna"); err != nil || result.Binding.Session != present {
		t.Errorf("lookup: %+v, %v", result, err)
	}
	ops := []routing.UnbindOp{{ID: "anna", Session: present, Epoch: bound[0].Epoch}}
	if results, err := r.Unbind(t.Context(), ops); err != nil || !results[0].Removed {
		t.Errorf("unbind: %+v, %v", results, err)
	}
	eventually(t, "what is absent is swept", isFree(r, "absent"))
	if left, err := r.Detach(t.Context(), present, here); err != nil || left != 0 {
		t.Errorf("detach: %d left, %v", left, err)
	}
	if ended, err := r.EndSession(t.Context(), routing.EndOp{Session: present, Bound: bound, Force: true}); err != nil || !ended {
		t.Errorf("end: %v, %v", ended, err)
	}
	eventually(t, "what is named is removed", isFree(r, "bert"))
}
