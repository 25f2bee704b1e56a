package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/internal/proc"
)

// startRelay runs a relay until the test ends.
func startRelay(t *testing.T) *proc.Relay {
	t.Helper()
	relay, err := proc.StartRelay(t.Context(), proc.RelayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	return relay
}

// startGateway runs a gateway on a free port until the test ends, and returns its URL.
func startGateway(t *testing.T, relay *proc.Relay) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, err := dial(t.Context(), client.Config{Nodes: []string{relay.Addr}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		listener.Close()
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, g, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		g.close() // an error if the relay has gone
	})
	return "http://" + listener.Addr().String()
}

// reply is any JSON answer of a gateway.
type reply struct {
	status    int
	Error     string
	ClientID  string `json:"clientId"`
	To        string
	Outcome   string
	Reason    string
	Delivered string
	Retry     bool
	Millis    *float64 `json:"ms"`
	Outcomes  []reply  // of a message to several IDs
	Online    []struct {
		ClientID string `json:"clientId"`
		Online   bool
		Outcome  string
	}
}

// query makes the query of name, value, name, value…
func query(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

func get(t *testing.T, path string, pairs ...string) reply {
	t.Helper()
	if len(pairs) > 0 {
		path += "?" + query(pairs...).Encode()
	}
	return ask(t, http.MethodGet, path, "", "")
}

func post(t *testing.T, path string, pairs ...string) reply {
	t.Helper()
	return ask(t, http.MethodPost, path, "application/x-www-form-urlencoded", query(pairs...).Encode())
}

// ask makes a request that must be answered, soon and in JSON.
func ask(t *testing.T, method, path, contentType, body string) (answer reply) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if kind := response.Header.Get("Content-Type"); kind != "application/json" {
		t.Fatalf("%.100s: answered %s with %q: %.200s", path, response.Status, kind, text)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%.100s: %v in %.200s", path, err, text)
	}
	answer.status = response.StatusCode
	return answer
}

// want fails unless the answer has this HTTP code and outcome.
func (r reply) want(t *testing.T, status int, outcome string) {
	t.Helper()
	if r.status != status || r.Outcome != outcome {
		t.Errorf("got %d %q %.300q, want %d %q", r.status, r.Outcome, r.Error+r.Reason, status, outcome)
	}
}

// refused fails unless the answer has this HTTP code and its error contains text.
func (r reply) refused(t *testing.T, status int, text string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.Error, text) {
		t.Errorf("got %d %.300q, want %d with %q", r.status, r.Error, status, text)
	}
}

// wantEach fails unless the answer has this HTTP code and these outcomes, each "ID outcome".
func (r reply) wantEach(t *testing.T, status int, outcomes ...string) {
	t.Helper()
	var got []string
	for _, o := range r.Outcomes {
		got = append(got, o.To+" "+o.Outcome)
	}
	if r.status != status || !slices.Equal(got, outcomes) || r.Millis == nil {
		t.Errorf("got %d %q %.300q, want %d %q with a time", r.status, got, r.Error, status, outcomes)
	}
}

// eventReader reads the events of an ID, as a page does.
type eventReader struct {
	t     *testing.T
	lines *bufio.Scanner
	id    string // of the last event
}

// openEvents opens a stream until the test ends. It goes on after the event with that number; "":
// it gets all there is.
func openEvents(t *testing.T, url, id, last string) *eventReader {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events?"+query("clientId", id).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if kind := response.Header.Get("Content-Type"); response.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatalf("/events: %s, %q", response.Status, kind)
	}
	e := &eventReader{t: t, lines: bufio.NewScanner(response.Body)}
	e.lines.Buffer(nil, 8<<20)
	e.want("state", `"attached"`)
	return e
}

// want reads the next event and fails unless it is this one.
func (e *eventReader) want(event, data string) {
	e.t.Helper()
	got := make(map[string]string)
	for e.lines.Scan() {
		if name, value, ok := strings.Cut(e.lines.Text(), ": "); ok {
			got[name] = value
		} else if got["event"] != "" {
			break
		}
	}
	if got["event"] != event || got["data"] != data {
		e.t.Fatalf("got event %.300q (%v), want %s %.300s", got, e.lines.Err(), event, data)
	}
	e.id = got["id"]
}
