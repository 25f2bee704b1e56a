package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"distmsg/internal/certs/certstest"
	"distmsg/internal/identity"
	"distmsg/internal/proc"
)

var full = flag.Bool("attack.full", false, "run the whole of each attack, which takes minutes, and check times, too")

func TestMain(m *testing.M) {
	Serve()
	flag.Parse()
	// gnet starts the goroutines of its worker pool when it is imported
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// TestAttacks runs each attack alone, against nodes of its own, and checks all bounds. -run
// TestAttacks/NAME selects.
func TestAttacks(t *testing.T) {
	if !*full {
		t.Skip("not the full attacks: -attack.full")
	}
	cpus, back, err := Apart()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := back(); err != nil {
			t.Error(err)
		}
	}()
	var table strings.Builder
	for _, attack := range Attacks() {
		t.Run(attack.Name, func(t *testing.T) {
			row := measure(t, Full, attack.Nodes, cpus, attack)
			table.WriteString(row.String())
			t.Logf("%s\n%s", row.Details(), row)
			for _, bad := range row.Bounds() {
				t.Error(bad)
			}
		})
	}
	t.Logf("\n%s%s", Header, table.String())
}

// measure starts nodes, with the flags of all attacks, and measures the attacks on them.
func measure(t *testing.T, p Plan, nodes int, cpus proc.CPUs, attacks ...Attack) *Row {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var flags []string
	for _, attack := range attacks {
		flags = append(flags, attack.Flags...)
	}
	var access Access
	if attacks[0].Secure {
		var more []string
		access, more = secure(t)
		flags = append(flags, more...)
	}
	a, err := StartArena(ctx, nodes, cpus, access, flags...)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer func() {
		for i, node := range a.Nodes {
			out := node.Output()
			t.Logf("n%d logs:\n%s", i+1, out[max(0, len(out)-1500):])
		}
	}()
	row, err := Measure(ctx, a, p, attacks...)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// secure makes a certificate for nodes and a token for innocents. It returns the flags of nodes
// that use both.
func secure(t *testing.T) (Access, []string) {
	t.Helper()
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	pair := ca.Issue(t, certstest.Request{}).Write(t, dir, "node")
	token, line, err := identity.NewToken("innocent", identity.Rights{}, time.Time{})
	tokens, file := filepath.Join(dir, "tokens"), filepath.Join(dir, "innocent.token")
	if err := errors.Join(err, identity.AddToken(tokens, line), os.WriteFile(file, []byte(token), 0o600)); err != nil {
		t.Fatal(err)
	}
	access := Access{
		TLS:       &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"},
		TokenFile: file, WrongToken: token[:len(token)-4] + strings.Repeat("A", 4),
	}
	return access, []string{"--tls-cert", pair.CertFile, "--tls-key", pair.KeyFile, "--auth-token-file", tokens}
}

// The short versions of the attacks: all that need one node at once, all of these that are about
// TLS and logins, and all that need a cluster.
// They assert counts only, and one of a hundred operations more than the bound, so that a machine
// which stands still for a moment breaks nothing.
var short = Plan{Settle: 200 * time.Millisecond, Baseline: 300 * time.Millisecond, Attack: 2 * time.Second,
	Recovery: 500 * time.Millisecond, After: 500 * time.Millisecond, Scale: 0.05}

const shortRefused = 0.02

func TestShortAlone(t *testing.T) { testShort(t, 1, false) }

func TestShortSecure(t *testing.T) { testShort(t, 1, true) }

func TestShortCluster(t *testing.T) { testShort(t, 2, false) }

func testShort(t *testing.T, nodes int, secure bool) {
	var attacks []Attack
	for _, attack := range Attacks() {
		// One that restarts a node would end the others.
		if (attack.Nodes > 1) == (nodes > 1) && attack.Secure == secure && attack.besides == nil {
			attacks = append(attacks, attack)
		}
	}
	row := measure(t, short, nodes, nil, attacks...)
	t.Logf("%s\n%s", row.Details(), row)
	for _, bad := range row.Counts(shortRefused) {
		t.Error(bad)
	}
	// Not each attack: on a slow machine some are still waiting for their welcome.
	if all, _ := row.Felt[Attacked].total(); all == 0 || len(row.Attackers) == 0 {
		t.Errorf("%d operations of innocents while %v attacked", all, row.Attackers)
	}
}

// TestBounds shows a row that keeps no bound, and one that keeps all.
func TestBounds(t *testing.T) {
	felt := func(slow time.Duration, bad int) *[phases]Felt {
		var all [phases]Felt
		for p := range all {
			for range 99 {
				all[p].add(opSend, "", time.Millisecond)
				all[p].add(opHello, "", time.Millisecond)
			}
			if Phase(p) == Baseline {
				continue
			}
			for range bad {
				all[p].add(opSend, "overflow", time.Second)
			}
			for range 2 {
				all[p].add(opSend, "", slow)
			}
			for range 2 {
				all[p].add(opHello, "", slow)
			}
		}
		return &all
	}
	good := Row{Felt: felt(time.Millisecond, 1)}
	if bad := good.Bounds(); len(bad) > 0 {
		t.Errorf("all is well, and yet: %q", bad)
	}
	worst := Row{
		Felt: felt(time.Second, 3), Dropped: 1, Ledger: 1, Fenced: []string{"n1 was fenced"}, Besides: errors.New("no links"),
		Attackers: map[string]int64{"sends with more than 2 outcomes": 1, letIn: 1},
		Node:      [phases]Used{After: {RSS: Budget + 1}},
		Contested: 1, Takeovers: 100, Lasted: 10 * time.Second,
	}
	got := make(map[string]bool)
	for _, bad := range worst.Bounds() {
		name, _, _ := strings.Cut(bad, ":")
		got[name] = true
	}
	for _, name := range []string{"dropped", "ledger", "refused", "node", "nodes", "outcomes", "logins", "takeovers", "p99", "hello", "memory"} {
		if !got[name] {
			t.Errorf("the bound %q was not kept, and nobody says so: %q", name, worst.Bounds())
		}
	}
}

// TestLoopback tries an address that is not this machine's.
func TestLoopback(t *testing.T) {
	if nc, err := connect(t.Context(), "192.0.2.1:7400"); err == nil || !strings.Contains(err.Error(), "not a loopback address") {
		t.Errorf("connected to %v (%v)", nc, err)
	}
}
