package admin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"distmsg/engine"
	"distmsg/internal/certs/certstest"
)

// fakeOperator answers with little, and remembers what was asked.
type fakeOperator struct {
	asked chan string
	err   error
	watch func(ctx context.Context, heard func(engine.WatchEvent)) error
}

func newFakeOperator() *fakeOperator { return &fakeOperator{asked: make(chan string, 16)} }

func (o *fakeOperator) Nodes(ctx context.Context) (engine.Asked[engine.NodeInfo], error) {
	if o.err != nil {
		return engine.Asked[engine.NodeInfo]{}, o.err
	}
	return engine.Asked[engine.NodeInfo]{Answers: []engine.NodeInfo{{Node: "n0"}}, Missing: []engine.MissingNode{{Node: "n1", Why: "no link"}}}, nil
}

func (o *fakeOperator) Sessions(_ context.Context, q engine.SessionQuery) (all engine.Asked[engine.SessionInfo], err error) {
	o.asked <- q.Identity
	return all, o.err
}

func (o *fakeOperator) Conns(context.Context, int) (all engine.Asked[engine.ConnInfo], err error) {
	return all, o.err
}

func (o *fakeOperator) Links(ctx context.Context) (all engine.Asked[engine.LinkInfo], err error) {
	<-ctx.Done()
	return all, ctx.Err()
}

func (o *fakeOperator) History(context.Context, int) (all engine.Asked[engine.HistorySample], err error) {
	return all, o.err
}

func (o *fakeOperator) IDs(_ context.Context, session string, _ int) (all engine.Asked[engine.IDInfo], err error) {
	o.asked <- session
	return all, o.err
}

func (o *fakeOperator) Where(_ context.Context, ids []string) (all engine.Asked[engine.WhereInfo], err error) {
	for _, id := range ids {
		all.Answers = append(all.Answers, engine.WhereInfo{ID: id, State: engine.WhereNotBound})
	}
	return all, o.err
}

func (o *fakeOperator) Trace(_ context.Context, from, to string) (engine.TraceInfo, error) {
	return engine.TraceInfo{From: from, To: to}, o.err
}

func (o *fakeOperator) Watch(ctx context.Context, _ []string, heard func(engine.WatchEvent)) error {
	return o.watch(ctx, heard)
}

func (o *fakeOperator) Kick(_ context.Context, id string) error    { return o.order("kick " + id) }
func (o *fakeOperator) Drain(_ context.Context, node string) error { return o.order("drain " + node) }
func (o *fakeOperator) Undrain(_ context.Context, n string) error  { return o.order("undrain " + n) }
func (o *fakeOperator) Rebalance(_ context.Context, node string, share float64, over time.Duration) (int, error) {
	return 7, o.order("rebalance " + node)
}

func (o *fakeOperator) LogLevels(context.Context) (all engine.Asked[engine.LogLevelInfo], err error) {
	all.Answers = []engine.LogLevelInfo{{Node: "n0", Levels: "info"}}
	return all, o.err
}

func (o *fakeOperator) SetLogLevels(_ context.Context, node, levels string) error {
	return o.order("log-level " + node + " " + levels)
}

func (o *fakeOperator) order(text string) error {
	o.asked <- text
	return o.err
}

// apiServer serves an API until the test ends, and returns its URL.
func apiServer(t *testing.T, listen string, o Operator, access Access, secure *tls.Config) (url string) {
	t.Helper()
	addr := serveAt(t, listen, Server{API: NewAPI(o, access, slog.New(slog.DiscardHandler)), TLS: secure})
	_, port, _ := net.SplitHostPort(addr)
	scheme := "http"
	if secure != nil {
		scheme = "https"
	}
	return scheme + "://127.0.0.1:" + port
}

// request is what a test sends.
type request struct {
	method, path, body string
	host               string
	header             map[string]string
}

// send returns the status of the answer, and what it says.
func (r request) send(t *testing.T, client *http.Client, url string) (status int, p Problem, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, url+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	req.Host = r.host
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		if err := json.Unmarshal(body, &p); err != nil {
			t.Errorf("%d is not JSON: %s", resp.StatusCode, body)
		}
	}
	return resp.StatusCode, p, string(body)
}

var asJSON = map[string]string{"Content-Type": "application/json"}

// Who may not ask, and what may not be asked, is refused, with what was wrong.
func TestAPIRefuses(t *testing.T) {
	o := newFakeOperator()
	url := apiServer(t, "127.0.0.1:0", o, Access{}, nil)
	for _, tc := range []struct {
		name   string
		r      request
		status int
		want   string
	}{
		{"another host", request{method: "GET", path: "/api/v1/nodes", host: "attacker.example"}, http.StatusMisdirectedRequest, `this server is not "attacker.example"`},
		{"another origin", request{method: "GET", path: "/api/v1/nodes", header: map[string]string{"Origin": "http://attacker.example"}}, http.StatusForbidden, "a page of http://attacker.example"},
		{"no origin", request{method: "GET", path: "/api/v1/nodes", header: map[string]string{"Origin": "null"}}, http.StatusForbidden, "a page of null"},
		{"another site", request{method: "GET", path: "/api/v1/nodes", header: map[string]string{"Sec-Fetch-Site": "cross-site"}}, http.StatusForbidden, "a page of another site"},
		{"another origin changes", request{method: "POST", path: "/api/v1/kick", body: `{"id":"a"}`, header: map[string]string{"Origin": "https://attacker.example", "Content-Type": "application/json"}}, http.StatusForbidden, "a page of"},
		{"GET on a change", request{method: "GET", path: "/api/v1/kick"}, http.StatusMethodNotAllowed, "is a change"},
		{"POST on a question", request{method: "POST", path: "/api/v1/nodes", body: "{}", header: asJSON}, http.StatusMethodNotAllowed, "is a question"},
		{"a form", request{method: "POST", path: "/api/v1/kick", body: "id=a", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}}, http.StatusUnsupportedMediaType, "Content-Type is"},
		{"a text", request{method: "POST", path: "/api/v1/kick", body: `{"id":"a"}`, header: map[string]string{"Content-Type": "text/plain"}}, http.StatusUnsupportedMediaType, "Content-Type is"},
		{"too large a body", request{method: "POST", path: "/api/v1/kick", body: `{"id":"` + strings.Repeat("a", maxBody) + `"}`, header: asJSON}, http.StatusRequestEntityTooLarge, "more than 65536 bytes"},
		{"no body", request{method: "POST", path: "/api/v1/kick", header: asJSON}, http.StatusBadRequest, "it is empty"},
		{"two bodies", request{method: "POST", path: "/api/v1/kick", body: `{"id":"a"} {}`, header: asJSON}, http.StatusBadRequest, "there is more"},
		{"an unknown field", request{method: "POST", path: "/api/v1/kick", body: `{"node":"a"}`, header: asJSON}, http.StatusBadRequest, `unknown field "node"`},
		{"no ID", request{method: "POST", path: "/api/v1/kick", body: `{}`, header: asJSON}, http.StatusBadRequest, "id is missing"},
		{"no levels", request{method: "POST", path: "/api/v1/log-level", body: `{"node":"n1"}`, header: asJSON}, http.StatusBadRequest, `levels: "" is not debug`},
		{"an unknown component", request{method: "POST", path: "/api/v1/log-level", body: `{"levels":"info,x=debug"}`, header: asJSON}, http.StatusBadRequest, `no component "x"`},
		{"neither GET nor POST", request{method: "PUT", path: "/api/v1/log-level"}, http.StatusMethodNotAllowed, "is a question"},
		{"no share", request{method: "POST", path: "/api/v1/rebalance", body: `{"node":"n1"}`, header: asJSON}, http.StatusBadRequest, "share is missing"},
		{"an unknown parameter", request{method: "GET", path: "/api/v1/sessions?slow=1"}, http.StatusBadRequest, `no parameter "slow"`},
		{"not a number", request{method: "GET", path: "/api/v1/sessions?slowest=many"}, http.StatusBadRequest, `slowest is "many"`},
		{"too many", request{method: "GET", path: "/api/v1/conns?limit=10001"}, http.StatusBadRequest, "0 to 10000"},
		{"twice", request{method: "GET", path: "/api/v1/ids?session=a&session=b"}, http.StatusBadRequest, "session is given 2 times"},
		{"not a session", request{method: "GET", path: "/api/v1/ids?session=abc"}, http.StatusBadRequest, "not the ID of a session"},
		{"a long timeout", request{method: "GET", path: "/api/v1/nodes?timeout=1h"}, http.StatusBadRequest, "up to 8s"},
		{"nobody is asked for", request{method: "GET", path: "/api/v1/where"}, http.StatusBadRequest, "id is missing"},
		{"nobody is watched", request{method: "GET", path: "/api/v1/watch"}, http.StatusBadRequest, "id is missing"},
		{"a path that is not there", request{method: "GET", path: "/api/v1/nowhere"}, http.StatusNotFound, "there is no /api/v1/nowhere"},
		{"no answer in time", request{method: "GET", path: "/api/v1/links?timeout=1ms"}, http.StatusGatewayTimeout, "took too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if status, p, _ := tc.r.send(t, http.DefaultClient, url); status != tc.status || !strings.Contains(p.Error, tc.want) {
				t.Errorf("%d %+v, want %d and %q", status, p, tc.status, tc.want)
			}
		})
	}
	select {
	case asked := <-o.asked:
		t.Errorf("the operator was asked %q", asked)
	default:
	}
}

// Whoever may ask is answered: a program, and a page of the server itself.
func TestAPIAnswers(t *testing.T) {
	o := newFakeOperator()
	url := apiServer(t, "127.0.0.1:0", o, Access{}, nil)
	own := map[string]string{"Origin": url, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json; charset=utf-8"}
	for _, tc := range []struct {
		r           request
		asked, want string
	}{
		{request{method: "GET", path: "/api/v1/nodes"}, "", `"why": "no link"`},
		{request{method: "GET", path: "/api/v1/nodes?timeout=2s", header: own}, "", `"node": "n0"`},
		{request{method: "GET", path: "/api/v1/sessions?identity=shop"}, "shop", `"answers"`},
		{request{method: "GET", path: "/api/v1/ids?session=5fa006ad3de12365d907755062872df3&limit=3"}, "5fa006ad3de12365d907755062872df3", `"answers"`},
		{request{method: "GET", path: "/api/v1/where?id=bob&id=carol"}, "", `"id": "carol"`},
		{request{method: "GET", path: "/api/v1/trace?from=a&to=b"}, "", `"to": "b"`},
		{request{method: "POST", path: "/api/v1/kick", body: `{"id":"bob"}`, header: asJSON}, "kick bob", `"ok": true`},
		{request{method: "GET", path: "/api/v1/log-level"}, "", `"levels": "info"`},
		{request{method: "POST", path: "/api/v1/log-level", body: `{"node":"n1","levels":"info,links=debug"}`, header: asJSON}, "log-level n1 info,links=debug", `"ok": true`},
		{request{method: "POST", path: "/api/v1/drain", body: `{}`, header: own}, "drain ", `"ok": true`},
		{request{method: "POST", path: "/api/v1/undrain", body: `{"node":"n1"}`, header: own}, "undrain n1", `"ok": true`},
		{request{method: "POST", path: "/api/v1/rebalance", body: `{"node":"n1","share":0.5,"over_seconds":60}`, header: asJSON}, "rebalance n1", `"moved": 7`},
	} {
		status, _, text := tc.r.send(t, http.DefaultClient, url)
		if status != http.StatusOK || !strings.Contains(text, tc.want) {
			t.Errorf("%s: %d %s, want %s", tc.r.path, status, text, tc.want)
		}
		if tc.asked != "" {
			if asked := <-o.asked; asked != tc.asked {
				t.Errorf("%s: the operator was asked %q, want %q", tc.r.path, asked, tc.asked)
			}
		}
	}
	o.err = engine.ErrNotBound
	if status, p, _ := (request{method: "POST", path: "/api/v1/kick", body: `{"id":"bob"}`, header: asJSON}).send(t, http.DefaultClient, url); status != http.StatusNotFound || p.Error != "the ID is not bound" {
		t.Errorf("%d %+v", status, p)
	}
	o.err = errors.New("the node does not run")
	if status, p, _ := (request{method: "GET", path: "/api/v1/nodes"}).send(t, http.DefaultClient, url); status != http.StatusServiceUnavailable || p.Error != o.err.Error() {
		t.Errorf("%d %+v", status, p)
	}
}

// An address that other machines reach answers the probes to everybody, and the API to those who
// show a token or a certificate. Without either, it has no API.
func TestAPICredentials(t *testing.T) {
	token := func(_ context.Context, token string) (Caller, error) {
		if token != "right" {
			return Caller{}, errors.New("the token is unknown")
		}
		return Caller{"ops", true}, nil
	}
	ca := certstest.NewCA(t, "operators")
	server, client := ca.Issue(t, certstest.Request{}), ca.Issue(t, certstest.Request{CommonName: "ops"})
	secure := &tls.Config{Certificates: []tls.Certificate{server.TLS}, ClientCAs: ca.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}
	trusting := func(certificates ...tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: certificates}}}
	}
	bearer := func(token string) map[string]string { return map[string]string{"Authorization": "Bearer " + token} }
	for _, tc := range []struct {
		name   string
		access Access
		secure *tls.Config
		client *http.Client
		header map[string]string
		status int
		want   string
	}{
		{"nothing is set up", Access{}, nil, trusting(), nil, http.StatusForbidden, "this API is closed"},
		{"nothing is set up, and a token", Access{}, nil, trusting(), bearer("right"), http.StatusForbidden, "this API is closed"},
		{"no token", Access{Token: token}, nil, trusting(), nil, http.StatusUnauthorized, "this needs credentials"},
		{"a wrong token", Access{Token: token}, nil, trusting(), bearer("wrong"), http.StatusUnauthorized, "the token is unknown"},
		{"no bearer", Access{Token: token}, nil, trusting(), map[string]string{"Authorization": "Basic right"}, http.StatusUnauthorized, "this needs credentials"},
		{"a token", Access{Token: token}, nil, trusting(), bearer("right"), http.StatusOK, ""},
		{"a certificate is missing", Access{ClientCerts: true}, secure, trusting(), nil, http.StatusUnauthorized, "this needs credentials"},
		{"a token where a certificate is wanted", Access{ClientCerts: true}, secure, trusting(), bearer("right"), http.StatusUnauthorized, "this needs credentials"},
		{"a certificate", Access{ClientCerts: true}, secure, trusting(client.TLS), nil, http.StatusOK, ""},
		{"a token in place of a certificate", Access{Token: token, ClientCerts: true}, secure, trusting(), bearer("right"), http.StatusOK, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := apiServer(t, "0.0.0.0:0", newFakeOperator(), tc.access, tc.secure)
			status, p, _ := request{method: "GET", path: "/api/v1/nodes", header: tc.header}.send(t, tc.client, url)
			if status != tc.status || !strings.Contains(p.Error, tc.want) || status != http.StatusOK && p.Hint == "" {
				t.Errorf("%d %+v, want %d and %q, and a hint", status, p, tc.status, tc.want)
			}
			if status, _, _ := (request{method: "GET", path: "/healthz"}).send(t, tc.client, url); status != http.StatusOK {
				t.Errorf("/healthz is %d", status)
			}
		})
	}
}

// Who may only ask is answered, and gives no orders. The refusal names the right, and is logged.
func TestAPIReadOnly(t *testing.T) {
	o, log := newFakeOperator(), new(bytes.Buffer)
	access := Access{Token: func(context.Context, string) (Caller, error) { return Caller{Name: "dashboard"}, nil }}
	addr := serveAt(t, "127.0.0.1:0", Server{API: NewAPI(o, access, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))})
	header := map[string]string{"Authorization": "Bearer x", "Content-Type": "application/json"}
	for _, path := range []string{"nodes", "where?id=bob", "log-level"} {
		if status, p, _ := (request{method: "GET", path: apiPrefix + path, header: header}).send(t, http.DefaultClient, "http://"+addr); status != http.StatusOK {
			t.Errorf("%s: %d %+v", path, status, p)
		}
	}
	for path, body := range map[string]string{
		"kick": `{"id":"bob"}`, "drain": `{}`, "undrain": `{}`, "rebalance": `{"node":"n1","share":1}`, "log-level": `{"levels":"debug"}`,
	} {
		status, p, _ := request{method: "POST", path: apiPrefix + path, body: body, header: header}.send(t, http.DefaultClient, "http://"+addr)
		if status != http.StatusForbidden || !strings.Contains(p.Error, path+" is an order, and dashboard lacks the right orders") || p.Hint == "" {
			t.Errorf("%s: %d %+v", path, status, p)
		}
		if !strings.Contains(log.String(), "order="+path+" who=dashboard") {
			t.Errorf("%s: the log is %s", path, log)
		}
	}
	if len(o.asked) > 0 {
		t.Errorf("the operator was asked %q", <-o.asked)
	}
}

// A certificate gives orders if its common name may.
func TestAPICertificateOrders(t *testing.T) {
	ca := certstest.NewCA(t, "operators")
	server := ca.Issue(t, certstest.Request{})
	secure := &tls.Config{Certificates: []tls.Certificate{server.TLS}, ClientCAs: ca.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}
	url := apiServer(t, "127.0.0.1:0", newFakeOperator(), Access{ClientCerts: true, CertOrders: func(name string) bool { return name == "ops" }}, secure)
	for name, want := range map[string]int{"ops": http.StatusOK, "dashboard": http.StatusForbidden} {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Issue(t, certstest.Request{CommonName: name}).TLS}}}}
		for _, r := range []struct {
			request
			status int
		}{{request{method: "GET", path: "/api/v1/nodes"}, http.StatusOK}, {request{method: "POST", path: "/api/v1/drain", body: "{}", header: asJSON}, want}} {
			if status, p, _ := r.send(t, client, url); status != r.status {
				t.Errorf("%s: %s %s: %d %+v", name, r.method, r.path, status, p)
			}
		}
	}
}

// A watcher hears events until it leaves, and the operator then hears that.
func TestAPIWatch(t *testing.T) {
	o := newFakeOperator()
	left := make(chan struct{})
	o.watch = func(ctx context.Context, heard func(engine.WatchEvent)) error {
		for _, id := range []string{"alice", "bob"} {
			heard(engine.WatchEvent{WhereInfo: engine.WhereInfo{ID: id}})
		}
		<-ctx.Done()
		close(left)
		return nil
	}
	c := dial(t, strings.TrimPrefix(apiServer(t, "127.0.0.1:0", o, Access{}, nil), "http://"))
	if _, err := io.WriteString(c, "GET /api/v1/watch?id=alice&id=bob HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for lines, want := bufio.NewScanner(c), []string{`"id":"alice"`, `"id":"bob"`}; len(want) > 0; {
		if !lines.Scan() {
			t.Fatalf("the stream ended before %s: %v", want[0], lines.Err())
		}
		if strings.HasPrefix(lines.Text(), "data: ") {
			if !strings.Contains(lines.Text(), want[0]) {
				t.Fatalf("%q, want %s", lines.Text(), want[0])
			}
			want = want[1:]
		}
	}
	c.Close()
	<-left
}

// A watcher that cannot be served is told why, in the stream.
func TestAPIWatchFails(t *testing.T) {
	o := newFakeOperator()
	o.watch = func(context.Context, func(engine.WatchEvent)) error { return errors.New("the registry is away") }
	url := apiServer(t, "127.0.0.1:0", o, Access{}, nil)
	_, _, text := request{method: "GET", path: "/api/v1/watch?id=alice"}.send(t, http.DefaultClient, url)
	if !strings.Contains(text, "event: problem\ndata: {\"error\":\"the registry is away\"}") {
		t.Errorf("the stream is %q", text)
	}
}

// The log says what was ordered, in the words of the API.
func TestOrdersAreLogged(t *testing.T) {
	var log strings.Builder
	api := NewAPI(newFakeOperator(), Access{}, slog.New(slog.NewTextHandler(&log, nil)))
	order := httptest.NewRequest(http.MethodPost, "/api/v1/rebalance", strings.NewReader(`{"node": "n1", "share": 0.25, "over_seconds": 60}`))
	order.Header.Set("Content-Type", jsonType)
	w := httptest.NewRecorder()
	api.at(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}).ServeHTTP(w, order)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if want := `with="{\"node\":\"n1\",\"share\":0.25,\"over_seconds\":60}"`; !strings.Contains(log.String(), want) {
		t.Errorf("no %s in %s", want, log.String())
	}
}
