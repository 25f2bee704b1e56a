package main

import (
	"context"
	_ "embed"
	"errors"
	"net/http"
	"sync"
	"time"

	"distmsg/client"
)

// patience bounds how long a login, a message or a lookup may take, also while no relay can be
// reached.
const patience = 5 * time.Second

// gateway is an app server. It has the users that are logged in here, and the session with the
// relay that holds their IDs.
type gateway struct {
	session *client.Session

	mu      sync.Mutex
	inboxes map[string]*inbox // guarded by mu; by ID
}

// dial connects a gateway to the relay.
func dial(ctx context.Context, cfg client.Config) (*gateway, error) {
	g := &gateway{inboxes: make(map[string]*inbox)}
	cfg.Handler, cfg.OnKick, cfg.OnState = g.receive, g.kicked, g.stateChanged
	session, err := client.Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	g.session = session
	return g, nil
}

// close ends the session, which logs out all users of this gateway.
func (g *gateway) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return g.session.Close(ctx)
}

//go:embed page.html
var page []byte

// handler serves HTTP. The streams of events end with ctx.
func (g *gateway) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/login", g.login)
	mux.HandleFunc("/logout", g.logout)
	mux.HandleFunc("/send", g.send)
	mux.HandleFunc("/online", g.online)
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) { g.events(ctx, w, r) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "+
			"img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Write(page)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "nothing is at %.80q: use /login, /send, /logout, /online, /events, or the page at /", r.URL.Path)
	})
	return mux
}

// login binds the ID to this gateway. If the user is logged in at another gateway, that login ends.
// A second login here changes nothing.
func (g *gateway) login(w http.ResponseWriter, r *http.Request) {
	p, ok := parameters(w, r, "clientId")
	if !ok {
		return
	}
	id := p.Get("clientId")
	var err error
	if !g.holds(id) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		g.open(id) // messages may arrive before Bind returns
		err = g.session.Bind(ctx, id)
		g.settle(id, "could not log in")
	}
	answerRequest(w, id, err)
}

// logout unbinds the ID.
func (g *gateway) logout(w http.ResponseWriter, r *http.Request) {
	p, ok := parameters(w, r, "clientId")
	if !ok {
		return
	}
	id := p.Get("clientId")
	if !g.holds(id) {
		refuse(w, http.StatusNotFound, "%.80q is not logged in here", id)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	err := g.session.Unbind(ctx, id)
	g.settle(id, "logged out")
	answerRequest(w, id, err)
}

// send sends a message from an ID that is logged in here, to one ID or to many, and answers with
// the outcome of each.
func (g *gateway) send(w http.ResponseWriter, r *http.Request) {
	p, ok := parameters(w, r, "from", "to,", "msg?")
	if !ok {
		return
	}
	from, to, text := p.Get("from"), p["to"], "hello"
	if p.Has("msg") {
		text = p.Get("msg")
	}
	if !g.holds(from) { // the relay would answer denied, too, but not say what to do
		refuse(w, httpStatus(client.CodeDenied), "%.80q is not logged in here: use /login first", from)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	start, m := time.Now(), client.Message{From: from, Payload: []byte(text)}
	if len(to) == 1 {
		m.To = to[0]
		_, err := g.session.Send(ctx, m)
		answerSend(w, outcomeOf(m.To, err), time.Since(start))
		return
	}
	results, err := g.session.Multicast(ctx, m, to)
	if errors.Is(err, client.ErrNotSupported) {
		refuse(w, http.StatusNotImplemented, "the relay does not support messages to several IDs: send one to each")
		return
	}
	outcomes := make([]outcome, len(to))
	for i, id := range to {
		if err == nil { // otherwise err is the outcome of all
			outcomes[i] = outcomeOf(id, results[i].Err)
		} else {
			outcomes[i] = outcomeOf(id, err)
		}
	}
	answerMulticast(w, outcomes, time.Since(start))
}

// online answers which IDs are logged in, at any gateway.
func (g *gateway) online(w http.ResponseWriter, r *http.Request) {
	p, ok := parameters(w, r, "clientId,")
	if !ok {
		return
	}
	type presence struct {
		ID      string `json:"clientId"`
		Online  bool   `json:"online"`
		Outcome string `json:"outcome"`
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	found, err := g.session.Lookup(ctx, p["clientId"]...)
	if found == nil { // if there are answers, an error means that there was no time for all of them
		refuse(w, http.StatusServiceUnavailable, "%v", err)
		return
	}
	status, all := http.StatusOK, make([]presence, len(found))
	for i, f := range found {
		all[i] = presence{f.ID, f.Online(), f.Code.String()}
		switch f.Code {
		// a gateway that has lost its relay is not online
		case client.CodeOK, client.CodeNoRoute, client.CodeUnreachable:
		default: // not known
			status = httpStatus(f.Code)
		}
	}
	answer(w, status, map[string]any{"online": all})
}

// receive handles a message for one of our users. Returning accepts the message.
func (g *gateway) receive(_ context.Context, d *client.Delivery) {
	if in := g.inbox(d.To); in == nil {
		d.Reject("logged out")
	} else if !in.add(message{From: d.From, Text: string(d.Payload)}) {
		d.Reject("too many messages wait for the page")
	}
}

// kicked is called when the relay has given an ID to another session.
func (g *gateway) kicked(k client.Kick) {
	if k.Code == client.CodeSuperseded {
		g.settle(k.ID, "logged in elsewhere")
	} else {
		g.settle(k.ID, "lost: "+k.Code.String())
	}
}

// stateChanged is called when a node was lost or found.
func (g *gateway) stateChanged(client.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, in := range g.inboxes {
		in.wake()
	}
}

// holds reports whether an ID is logged in here. The session knows it.
func (g *gateway) holds(id string) bool {
	_, held := g.session.Epoch(id)
	return held
}

// inbox returns an ID's inbox; nil if it has none.
func (g *gateway) inbox(id string) *inbox {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inboxes[id]
}

// open gives an ID an inbox, unless it has one.
func (g *gateway) open(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inboxes[id] == nil {
		g.inboxes[id] = newInbox()
	}
}

// settle ensures that exactly the IDs that the session holds have inboxes, whatever has happened
// meanwhile. A closed inbox tells its pages why.
func (g *gateway) settle(id, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch in, held := g.inboxes[id], g.holds(id); {
	case held && in == nil:
		g.inboxes[id] = newInbox()
	case !held && in != nil:
		delete(g.inboxes, id)
		in.close(why)
	}
}
