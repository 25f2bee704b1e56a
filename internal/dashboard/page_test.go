package dashboard_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"distmsg/internal/admin"
	"distmsg/internal/browsertest"
)

// screenshots is given as: go test ./internal/dashboard -run TestPage -screenshots /tmp, and then
// cp /tmp/light-1440.png docs/dashboard.png
var screenshots = flag.String("screenshots", "", "`folder` to write pictures of the page to")

// hostile is an ID and an identity that would run a script if the page took it for HTML.
const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

// page is the page in a browser.
type page struct {
	*testing.T
	tab context.Context
}

// eventually waits until an expression is true.
func (p *page) eventually(what, expression string) {
	p.Helper()
	poll := time.NewTicker(30 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); p.get("Boolean("+expression+")") != "true"; <-poll.C {
		if time.Now().After(deadline) {
			p.Fatalf("not after %v: %s. The page says:\n%s", patience, what, p.get("document.body.innerText"))
		}
	}
}

func (p *page) get(expression string) string {
	p.Helper()
	return browsertest.Evaluate(p, p.tab, expression)
}

// text is the text of an element, in JavaScript.
func text(id string) string { return "(document.getElementById('" + id + "')?.innerText ?? '')" }

// says waits until an element has a text.
func (p *page) says(id, want string) {
	p.Helper()
	p.eventually(id+" says "+want, text(id)+".includes("+strconv.Quote(want)+")")
}

// submit fills in fields of a form, and sends it.
func (p *page) submit(form string, fields map[string]string) {
	p.Helper()
	for id, value := range fields {
		p.get(fmt.Sprintf("document.getElementById(%q).value = %q", id, value))
	}
	p.get(fmt.Sprintf("document.getElementById(%q).requestSubmit()", form))
}

// state waits until the table of nodes has a node in a state.
func (p *page) state(node, want string) {
	p.Helper()
	p.eventually(node+" is "+want, fmt.Sprintf(`[...document.querySelectorAll("#nodes tbody tr")].some(r => r.cells[0].innerText === %q && r.cells[1].innerText.includes(%q))`, node, want))
}

// TestPage looks at the page in Chromium, on a cluster with traffic.
func TestPage(t *testing.T) {
	c := startCluster(t)
	alice, bob, carol := c.join(0, "shop", "alice"), c.join(1, "chat", "bob"), c.join(2, "game", "carol")
	c.send(alice, "alice", "bob", "carol")
	c.send(bob, "bob", "alice", "nobody")
	c.send(carol, "carol", "alice")
	_ = c.join(0, hostile, hostile)
	c.bind(c.join(0, "greedy", "g1"), "g2", "g3", "g4", "g5")
	p := &page{t, browsertest.Open(t)}
	browsertest.Do(t, p.tab, browsertest.Prefer("light"), chromedp.EmulateViewport(1440, 1100), chromedp.Navigate(c.serve(0, admin.Access{})))

	for _, part := range []struct {
		name string
		test func(*page, *cluster)
	}{
		{"live", (*page).seesLive}, {"find", (*page).finds}, {"trace", (*page).traces}, {"no script", (*page).runsNoScript},
		{"drain and kill", (*page).seesTrouble}, {"look", (*page).looksWell}, {"token", (*page).asksForToken},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(&page{t, p.tab}, c) }) {
			return // what follows builds on it
		}
	}
}

// Real traffic shows: the state of nodes and links, rates, latency, outcomes, sessions and limits.
func (p *page) seesLive(*cluster) {
	for _, node := range []string{"n0", "n1", "n2"} {
		p.state(node, "ready")
	}
	p.says("viewpoint", "as node n0 sees it")
	p.eventually("three links", `document.querySelectorAll("#picture .link.up").length === 3`)
	p.says("slowest", "shop")
	p.says("limits", "identity-ids")
	p.says("limits", "greedy")
	p.eventually("the picture says the same in words", `document.getElementById("picture").ariaLabel.includes("n2 ready")`)
	p.eventually("a rate at each node", `[...document.querySelectorAll("#nodes tbody tr")].every(r => parseFloat(r.cells[2].innerText) > 0)`)
	p.eventually("a latency", `/[0-9.]+ (µs|ms|s)/.test([...document.querySelectorAll(".tile dd")][3].innerText)`)
	p.eventually("three charts", `document.querySelectorAll("#charts canvas").length === 3`)
	p.says("charts", "no_route")
	p.says("connection", "Live")
}

// An ID is found, and one that nobody has bound is not.
func (p *page) finds(*cluster) {
	p.submit("where", map[string]string{"id": "carol"})
	p.says("found", "carol is bound")
	p.says("found", "No node believes something else")
	if got := p.get(`document.querySelector("#found dd").innerText`); got != "n2" {
		p.Errorf("carol is at %q", got)
	}
	p.eventually("what n2 knows of it", `[...document.querySelectorAll("#found tbody th")].some(h => h.innerText === "n2")`)
	p.submit("where", map[string]string{"id": "nobody"})
	p.says("found", "nobody is not bound")
	p.submit("where", map[string]string{"id": hostile})
	p.eventually("the text of the ID", text("found")+".includes("+strconv.Quote(hostile+" is bound")+")")
}

// A dry run shows its steps.
func (p *page) traces(*cluster) {
	p.submit("trace", map[string]string{"from": "alice", "to": "carol"})
	p.says("traced", "alice → carol: acked")
	p.eventually("the steps", `document.querySelectorAll("#traced tbody tr").length >= 4`)
	p.submit("trace", map[string]string{"from": "alice", "to": "nobody"})
	p.says("traced", "no_route")
	p.submit("trace", map[string]string{"from": "alice", "to": strings.Repeat("é", 200)})
	p.says("traced", "is not an ID")
	p.submit("trace", map[string]string{"from": "alice", "to": hostile})
	p.says("traced", "onerror")
}

// Texts from the network are texts, and the page runs no script but its own.
func (p *page) runsNoScript(*cluster) {
	p.says("slowest", "onerror")
	if got := p.get(`document.querySelectorAll("main img, main script").length`); got != "0" {
		p.Errorf("%s elements came from texts", got)
	}
	p.get(`(() => { const s = document.createElement("script"); s.textContent = "document.title = 'owned'"; document.body.append(s); s.remove(); return "" })()`)
	if got := p.get("document.title"); strings.Contains(got, "owned") {
		p.Error("a script from a text has run")
	}
	if got := p.get(`performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith(location.origin) && !n.startsWith("data:")).join(" ")`); got != "" {
		p.Errorf("the page loads from elsewhere: %s", got)
	}
}

// A node that drains is shown as draining, and one that was killed as gone, also to who opens the
// page later.
func (p *page) seesTrouble(c *cluster) {
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	go func() { drained <- c.nodes[0].Operator().Drain(ctx, "n1") }()
	p.state("n1", "draining")
	p.says("troubles", "Node n1 drains.")
	if err := <-drained; err != nil {
		p.Error(err)
	}
	c.kill[2]()
	p.state("n2", "gone")
	p.says("troubles", "It is in the list of nodes, and no other node has a link to it.")
	p.says("verdict", "Bad: Node n2 is gone. And ")
	p.eventually("links are down", `document.querySelectorAll("#picture .link.down").length >= 2`)
	p.get(`(location.reload(), "")`)
	p.eventually("the page begins anew", `document.readyState === "complete" && document.documentElement.dataset.node === "n0"`)
	p.state("n2", "gone")
	p.eventually("what n1 did before", `[...document.querySelectorAll("#charts tbody th")].some(h => h.innerText === "n1")`)
	p.submit("where", map[string]string{"id": "bob"})
	p.says("found", "bob is bound")
	p.submit("trace", map[string]string{"from": "alice", "to": "bob"})
	p.says("traced", "alice → bob")
}

// The page fits phones and desks, by day and by night.
func (p *page) looksWell(*cluster) {
	for _, width := range []int64{390, 1440} {
		for _, scheme := range []string{"dark", "light"} {
			name := fmt.Sprintf("%s-%d", scheme, width)
			browsertest.Do(p, p.tab, browsertest.Prefer(scheme), chromedp.EmulateViewport(width, 1150))
			p.eventually("charts as wide as their places", `[...document.querySelectorAll(".chart")].every(c => { const u = c.querySelector(".uplot"); return u && Math.abs(u.clientWidth - c.clientWidth) < 2 })`)
			browsertest.Check(p, p.tab, name)
			if *screenshots != "" {
				browsertest.Picture(p, p.tab, filepath.Join(*screenshots, name+".png"))
			}
		}
	}
	if got := p.get(`[...document.querySelectorAll("table")].filter(t => !t.caption || t.querySelectorAll("th[scope=col]").length === 0 || t.querySelectorAll("tbody tr").length !== t.querySelectorAll("th[scope=row]").length).length`); got != "0" {
		p.Errorf("%s tables lack headers", got)
	}
}

// Where the admin port wants a token, the page asks for it, and keeps it for this tab only.
func (p *page) asksForToken(c *cluster) {
	url := c.serve(0, admin.Access{Token: func(_ context.Context, token string) (admin.Caller, error) {
		if token != "sesame" {
			return admin.Caller{}, errors.New("the token is unknown")
		}
		return admin.Caller{Name: "ops"}, nil
	}})
	browsertest.Do(p, p.tab, chromedp.Navigate(url))
	p.says("login-why", "this needs credentials")
	p.submit("login", map[string]string{"token": "guess"})
	p.says("login-why", "the token is unknown")
	p.submit("login", map[string]string{"token": "sesame"})
	p.says("viewpoint", "as node n0 sees it")
	p.submit("where", map[string]string{"id": "alice"})
	p.says("found", "alice is bound")
	if got := p.get(`document.getElementById("login").hidden && localStorage.length === 0 && !document.cookie && !location.href.includes("sesame")`); got != "true" {
		p.Error("the token is still asked for, or kept where it should not be")
	}
	p.get(`document.getElementById("forget").click()`)
	p.says("login-why", "this needs credentials")
}
