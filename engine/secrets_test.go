package engine

import (
	"bytes"
	"slices"
	"testing"

	"distmsg/codec"
)

func TestSetSecretsChecks(t *testing.T) {
	longEnough := bytes.Repeat([]byte("x"), 16)
	n := start(t, Config{Addr: "none"})
	for _, s := range []Secrets{{}, {Resume: [][]byte{longEnough[:15]}}, {Cluster: [][]byte{longEnough, longEnough[:15]}}} {
		if n.SetSecrets(s) == nil {
			t.Errorf("%q is accepted", s)
		}
	}
	if err := n.SetSecrets(Secrets{Resume: [][]byte{longEnough}}); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{SecretsAccepted: [][]byte{longEnough[:15]}}); err == nil {
		t.Error("a short secret is accepted")
	}
	former, latter := bytes.Repeat([]byte("f"), 16), bytes.Repeat([]byte("l"), 16)
	e, err := New(Config{ClusterSecret: longEnough, ClusterSecretsAccepted: [][]byte{former}, SecretsAccepted: [][]byte{latter}})
	if err != nil {
		t.Fatal(err)
	}
	if all := e.secrets.resume.All(); !slices.EqualFunc(all, [][]byte{longEnough, former, latter}, bytes.Equal) {
		t.Errorf("sessions resume with %q", all)
	}
}

// The secret of a cluster is replaced under load: no link, no connection and no message is lost, a
// session resumes with a secret from before, and a node that starts anew gets in at each step.
func TestRotateSecrets(t *testing.T) {
	long(t)
	t.Parallel()
	former, latter := []byte("the secret of the test cluster"), bytes.Repeat([]byte("n"), 32)
	g := startGroup(t, 3, 2)
	g.linked(3)
	opened := make([]map[string]*link, 3)
	for i, n := range g.nodes {
		opened[i] = n.links()
	}
	a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
	old := a.resume()
	for step, secrets := range [][][]byte{{former, latter}, {latter, former}, {latter}} {
		for _, n := range g.nodes {
			if err := n.SetSecrets(Secrets{Cluster: secrets}); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*client{a, b} {
				if step == 1 && c.n == n { // it needs another resume secret
					if within, reason := c.relogin(); within != 10_000 || reason != detailSecret {
						t.Errorf("%d, %q", within, reason)
					}
				}
			}
			for range 20 {
				a.exchange("a", b, "b")
				b.exchange("b", a, "a")
			}
			if step == 1 { // some use the new secret, some do not yet
				at := n.dial()
				if w := at.hello(old); w.Flags&codec.WelcomeResumed == 0 {
					t.Error("not resumed")
				}
				at.write(codec.AppendLeave(nil))
				at.expect(codec.KindLeft)
				at.nc.Close()
			}
		}
		late := g.start("late"+string(rune('0'+step)), 1, func(c *Config) {
			c.ClusterSecret, c.ClusterSecretsAccepted = secrets[0], secrets[1:]
		})
		late.eventually("its links", func() bool { return late.Stats().Links == 3 })
		if err := late.stop(); err != nil {
			t.Error(err)
		}
	}
	for i, n := range g.nodes {
		for node, k := range n.links() {
			if before := opened[i][node]; before != nil && before != k {
				t.Errorf("the link to %s is another", node)
			}
		}
	}
	wrong := g.nodes[0].dial() // the old secret signs nothing any more
	old.MinVersion, old.MaxVersion = 1, 1
	wrong.write(codec.AppendHello(nil, &old))
	wrong.fails(codec.FaultUnauthenticated)
	a.alive()
}

// links returns the open links by node.
func (n *node) links() map[string]*link {
	all := make(map[string]*link)
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	for name, k := range n.cluster.links {
		all[name] = k
	}
	return all
}
