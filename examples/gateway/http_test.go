package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/client"
)

func TestSend(t *testing.T) {
	relay := startRelay(t)
	here, there := startGateway(t, relay), startGateway(t, relay)
	get(t, here+"/login", "clientId", "1001").want(t, 200, "ok")
	get(t, there+"/login", "clientId", "1002").want(t, 200, "ok")
	get(t, here+"/send", "from", "1001", "to", "1002").want(t, 200, "acked")
	get(t, here+"/send", "from", "1001", "to", "1003").want(t, 404, "no_route")
	get(t, here+"/send", "from", "1002", "to", "1001").refused(t, 403, `"1002" is not logged in here`)
	if o := get(t, here+"/online", "clientId", "1001,1002,1003").Online; len(o) != 3 || !o[0].Online || !o[1].Online || o[2].Online {
		t.Errorf("online: %+v", o)
	}
	get(t, there+"/login", "clientId", "1001").want(t, 200, "ok") // kicks it here
	get(t, there+"/send", "from", "1001", "to", "1002").want(t, 200, "acked")
	get(t, there+"/logout", "clientId", "1002").want(t, 200, "ok")
	get(t, there+"/logout", "clientId", "1002").refused(t, 404, `"1002" is not logged in here`)
	get(t, there+"/send", "from", "1001", "to", "1002").want(t, 404, "no_route")
}

// A message to several IDs is answered with an outcome for each, and the HTTP code that they share,
// or 207.
func TestMulticast(t *testing.T) {
	relay := startRelay(t)
	here, there := startGateway(t, relay), startGateway(t, relay)
	for url, id := range map[string]string{here: "1001", there: "1002"} {
		get(t, url+"/login", "clientId", id).want(t, 200, "ok")
	}
	send := func(to string) reply { return get(t, here+"/send", "from", "1001", "to", to, "msg", "to all") }
	send("1001,1002").wantEach(t, 200, "1001 acked", "1002 acked")
	send("1002,1003").wantEach(t, 207, "1002 acked", "1003 no_route")
	send("1003,1004").wantEach(t, 404, "1003 no_route", "1004 no_route")
	send("1002,1002").wantEach(t, 200, "1002 acked", "1002 acked") // twice
	in := openEvents(t, there, "1002", "")
	for range 4 {
		in.want("message", `{"from":"1001","text":"to all"}`)
	}
	send("1002,,1003").refused(t, 400, `parameter "to": an ID has 1 to 255 bytes, not 0`)
	if many := send(strings.Repeat("1003,", 10_000) + "1003"); many.status != 413 || len(many.Outcomes) != 10_001 ||
		!strings.Contains(many.Outcomes[10_000].Reason, "10001 IDs in one multicast, the node allows 10000") {
		t.Errorf("10,001 IDs: %d with %d outcomes: %.200q", many.status, len(many.Outcomes), many.Error)
	}
}

// What a receiver that is cut off, or does not answer, is to its senders.
func TestReceiverInTrouble(t *testing.T) {
	t.Parallel()
	relay := startRelay(t)
	url := startGateway(t, relay)
	get(t, url+"/login", "clientId", "1001").want(t, 200, "ok")

	var dials atomic.Int32
	conns := make(chan net.Conn, 1)
	cut, err := client.Dial(t.Context(), client.Config{
		Nodes: []string{relay.Addr}, Logger: slog.New(slog.DiscardHandler),
		Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
			if dials.Add(1) > 1 {
				return nil, errors.New("cut off")
			}
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			conns <- conn
			return conn, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	defer cut.Close(ended)
	if err := cut.Bind(t.Context(), "cut off"); err != nil {
		t.Fatal(err)
	}
	(<-conns).Close()
	// until the relay has noticed
	for get(t, url+"/online", "clientId", "cut off").Online[0].Outcome == "ok" {
	}
	get(t, url+"/send", "from", "1001", "to", "cut off").want(t, 503, "unreachable")

	silent, err := client.Dial(t.Context(), client.Config{
		Nodes: []string{relay.Addr}, Logger: slog.New(slog.DiscardHandler),
		Handler: func(_ context.Context, d *client.Delivery) { d.Defer() },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close(ended)
	if err := silent.Bind(t.Context(), "silent"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	get(t, url+"/send", "from", "1001", "to", "silent").want(t, 504, "timeout")
	if took := time.Since(start); took < patience-time.Second || took > patience+5*time.Second {
		t.Errorf("timeout came after %v, want about %v", took, patience)
	}
}

func TestBadRequests(t *testing.T) {
	url := startGateway(t, startRelay(t))
	get(t, url+"/login").refused(t, 400, `missing parameter "clientId"`)
	get(t, url+"/send", "from", "1").refused(t, 400, `missing parameter "to"`)
	get(t, url+"/send", "from", "1", "to", "2", "message", "x").refused(t, 400, `unknown parameter "message"`)
	get(t, url+"/send?from=1&from=2&to=3").refused(t, 400, `parameter "from" was given twice`)
	get(t, url+"/send?from=1&to=2&msg=%ff").refused(t, 400, `parameter "msg" is not UTF-8`)
	get(t, url+"/send?from=1&to=2&msg=%zz").refused(t, 400, "invalid URL escape")
	get(t, url+"/login?clientId=").refused(t, 400, "an ID has 1 to 255 bytes, not 0")
	get(t, url+"/login", "clientId", strings.Repeat("x", 256)).refused(t, 400, "an ID has 1 to 255 bytes, not 256")
	get(t, url+"/login", "clientId", "1,2").refused(t, 400, "without commas")
	get(t, url+"/events", "clientId", "1").refused(t, 404, `"1" is not logged in here`)
	get(t, url+"/nowhere").refused(t, 404, "/nowhere")
	ask(t, http.MethodPut, url+"/login?clientId=1", "", "").refused(t, 405, "PUT")
	ask(t, http.MethodPost, url+"/login", "application/json", "{}").refused(t, 415, "application/json")
}

// A megabyte of text arrives, one byte more is too large; neither hangs.
func TestLongAndOddText(t *testing.T) {
	url := startGateway(t, startRelay(t))
	odd := "1\u202e\u0000\n👩🏽‍🚀"
	get(t, url+"/login", "clientId", odd).want(t, 200, "ok")
	get(t, url+"/send", "from", odd, "to", odd, "msg", odd).want(t, 200, "acked")
	long := strings.Repeat("x", 1<<20)
	for _, ask := range []func(*testing.T, string, ...string) reply{get, post} {
		ask(t, url+"/send", "from", odd, "to", odd, "msg", long).want(t, 200, "acked")
		ask(t, url+"/send", "from", odd, "to", odd, "msg", long+"x").want(t, 413, "too_large")
	}
	post(t, url+"/send", "msg", strings.Repeat("x", maxRequest)).refused(t, 413, "the form has more than")
}
