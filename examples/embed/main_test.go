package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"distmsg/internal/proc"
)

// patience bounds every wait; nothing depends on less.
const patience = 30 * time.Second

var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "embed")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := proc.Build(context.Background(), dir, "./examples/embed"); err != nil {
			panic(err)
		}
		program = filepath.Join(dir, "embed")
		return m.Run()
	}())
}

// chatServer is a process of the program.
type chatServer struct {
	*proc.Process
	t    *testing.T
	addr string
}

var announced = regexp.MustCompile(`users connect addr=(\S+)`)

func start(t *testing.T, args ...string) *chatServer {
	t.Helper()
	p, err := proc.Start(t.Context(), proc.Command{Path: program, Args: append([]string{"--http", "127.0.0.1:0"}, args...),
		Ready: func(_ context.Context, p *proc.Process) error {
			if !announced.MatchString(p.Output()) {
				return errors.New("not announced")
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return &chatServer{p, t, announced.FindStringSubmatch(p.Output())[1]}
}

// person is a WebSocket client.
type person struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
}

func (s *chatServer) dial(query url.Values) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return websocket.Dial(ctx, "ws://"+s.addr+"/chat?"+query.Encode(), nil)
}

// login returns when the user's name is bound, which a message to oneself tells.
func (s *chatServer) login(id string) *person {
	s.t.Helper()
	conn, _, err := s.dial(url.Values{"id": {id}, "token": {"sesame"}})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(func() { cancel(); conn.CloseNow() })
	conn.SetReadLimit(4 << 20)
	u := &person{s.t, conn, ctx}
	u.write(event{To: id, Text: "me", N: 1})
	u.reads(event{From: id, Text: "me"})
	u.reads(event{N: 1, Outcome: "acked"})
	return u
}

func (u *person) write(e event) {
	u.t.Helper()
	if err := wsjson.Write(u.ctx, u.conn, e); err != nil {
		u.t.Fatal(err)
	}
}

func (u *person) read() event {
	u.t.Helper()
	var e event
	if err := wsjson.Read(u.ctx, u.conn, &e); err != nil {
		u.t.Fatal(err)
	}
	return e
}

func (u *person) reads(want event) {
	u.t.Helper()
	if got := u.read(); got != want {
		u.t.Fatalf("read %+v, want %+v", got, want)
	}
}

// ends reads until the connection is closed, and returns why it was.
func (u *person) ends() websocket.StatusCode {
	u.t.Helper()
	for {
		if _, _, err := u.conn.Read(u.ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

// says sends a text to somebody who reads it, and hears that it was acked.
func (u *person) says(from string, to *person, id, text string) {
	u.t.Helper()
	u.write(event{To: id, Text: text, N: 7})
	to.reads(event{From: from, Text: text})
	u.reads(event{N: 7, Outcome: "acked"})
}

// outcome sends until the outcome is the one that is waited for, for what takes a moment to be
// known everywhere.
func (u *person) outcome(to, want string) {
	u.t.Helper()
	var got string
	for deadline := time.Now().Add(patience); got != want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			u.t.Fatalf("to %s: %s, want %s", to, got, want)
		}
		u.write(event{To: to, N: 8})
		got = u.read().Outcome
	}
}

func (s *chatServer) stats() (all map[string]int64) {
	s.t.Helper()
	resp, err := http.Get("http://" + s.addr + "/stats")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		s.t.Fatal(err)
	}
	return all
}

func TestAlone(t *testing.T) {
	s := start(t)
	alice, bob := s.login("alice"), s.login("bob")
	alice.says("alice", bob, "bob", "hello")
	bob.says("bob", alice, "alice", "héllo 🙂 \u202e \x00 \n ünd so weiter")
	alice.write(event{To: "nobody", N: 2})
	alice.reads(event{N: 2, Outcome: "no_route"})
	alice.write(event{N: 3, Text: "to whom?"})
	if e := alice.read(); e.N != 3 || e.Outcome != "bad_id" || !strings.Contains(e.Reason, "not 0") {
		t.Errorf("%+v", e)
	}
	if got := s.stats(); got["online"] != 2 || got["undelivered"] != 1 || got["delivered"] != 4 {
		t.Errorf("%v", got)
	}
}

func TestRefused(t *testing.T) {
	s := start(t)
	for _, q := range []url.Values{{"id": {"eve"}}, {"id": {"eve"}, "token": {"guess"}}, {"token": {"sesame"}}, {"id": {strings.Repeat("x", 256)}, "token": {"sesame"}}} {
		_, resp, err := s.dial(q)
		if err == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%v: %v", q, err)
		}
		if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "who are you?") {
			t.Errorf("%q", body)
		}
	}
	var out bytes.Buffer
	if err := talk(t.Context(), s.addr, "eve", "guess", strings.NewReader(""), &out); err == nil || !strings.Contains(err.Error(), "who are you?") {
		t.Errorf("%v", err)
	}
}

func TestTooLarge(t *testing.T) {
	s := start(t)
	alice, bob := s.login("alice"), s.login("bob")
	alice.write(event{To: "bob", Text: strings.Repeat("x", maxText+1), N: 2})
	if e := alice.read(); e.N != 2 || e.Outcome != "too_large" {
		t.Errorf("%+v", e)
	}
	alice.says("alice", bob, "bob", strings.Repeat("x", maxText))
	alice.write(event{To: "bob", Text: strings.Repeat("x", maxFrame)})
	if why := alice.ends(); why != websocket.StatusMessageTooBig {
		t.Errorf("%v", why)
	}
	if err := bob.conn.Write(bob.ctx, websocket.MessageText, []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	if why := bob.ends(); why != websocket.StatusInvalidFramePayloadData {
		t.Errorf("%v", why)
	}
	s.login("carol").outcome("bob", "no_route")
}

func TestKicked(t *testing.T) {
	s := start(t)
	first, alice := s.login("bob"), s.login("alice")
	second := s.login("bob")
	if why := first.ends(); why != kicked {
		t.Errorf("%v", why)
	}
	alice.says("alice", second, "bob", "which one are you?")
	if got := s.stats()["kicked"]; got != 1 {
		t.Errorf("%d kicks", got)
	}
}

// A user who does not read costs only himself: his writers hear of it, he is cut off, and the
// others go on.
func TestSlow(t *testing.T) {
	s := start(t, "--patience", "1s")
	slow, alice, bob, carol := s.login("slow"), s.login("alice"), s.login("bob"), s.login("carol")
	outcomes := make(map[string]int)
	text := strings.Repeat("x", maxText)
	for n, gone := int64(1), false; !gone; n++ { // the kernel's buffers take some
		alice.write(event{To: "slow", Text: text, N: n})
		e := alice.read()
		outcomes[e.Outcome]++
		gone = e.Outcome == "no_route"
		if n%50 == 0 {
			bob.says("bob", carol, "carol", "still here")
		}
		if n > 100_000 {
			t.Fatalf("there is no end to it: %v", outcomes)
		}
	}
	slow.ends()
	if outcomes["acked"] == 0 {
		t.Errorf("%v", outcomes)
	}
	bob.says("bob", carol, "carol", "still here")
}

// Many messages at once to somebody who reads slowly: what does not fit is refused, and a writer
// who does not read what becomes of his messages is not read any more.
func TestFlood(t *testing.T) {
	s := start(t, "--patience", "2s")
	slow, alice, bob, carol := s.login("slow"), s.login("alice"), s.login("bob"), s.login("carol")
	flooded := make(chan error, 1)
	go func() {
		for n := int64(1); ; n++ {
			if err := wsjson.Write(alice.ctx, alice.conn, event{To: "slow", Text: strings.Repeat("x", maxText), N: n}); err != nil {
				flooded <- err
				return
			}
		}
	}()
	for range 5 {
		bob.says("bob", carol, "carol", "still here")
	}
	outcomes := make(map[string]int)
	for outcomes["overflow"]+outcomes["timeout"]+outcomes["rejected"]+outcomes["no_route"] == 0 {
		outcomes[alice.read().Outcome]++
	}
	alice.conn.CloseNow()
	<-flooded
	slow.conn.CloseNow()
	bob.says("bob", carol, "carol", "still here")
}

func TestStop(t *testing.T) {
	s := start(t)
	alice := s.login("alice")
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if why := alice.ends(); why != websocket.StatusGoingAway {
		t.Errorf("%v", why)
	}
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Error("it goes on")
	}
	if strings.Contains(s.Output(), "embed:") || strings.Contains(s.Output(), "WARN") {
		t.Error(s.Output())
	}
}

func TestCannotStart(t *testing.T) {
	s := start(t)
	for want, args := range map[string][]string{
		"address already in use":       {"--http", s.addr},
		"a cluster needs -secret-file": {"--redis", "redis://127.0.0.1:1"},
	} {
		p, err := proc.Start(t.Context(), proc.Command{Path: program, Args: args})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		if !strings.Contains(p.Output(), "embed: ") || !strings.Contains(p.Output(), want) {
			t.Errorf("%q", p.Output())
		}
	}
}

// startCluster runs n servers that share a Redis and a ZooKeeper.
func startCluster(t *testing.T, n int) (servers []*chatServer) {
	t.Helper()
	redis, err := proc.StartRedis(t.Context(), proc.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	zk, err := proc.StartZooKeeper(t.Context(), proc.ZooKeeperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zk.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the secret of the test cluster"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range n {
		servers = append(servers, start(t, "--redis", redis.URL(), "--zookeeper", "zk://"+zk.Addr+"/chat", "--secret-file", secret))
	}
	return servers
}

// Two processes: users of one write to users of the other, a name is kicked from one to the other,
// and who was on a process that dies is gone.
func TestCluster(t *testing.T) {
	servers := startCluster(t, 2)
	alice, bob := servers[0].login("alice"), servers[1].login("bob")
	for i := range 3 {
		alice.says("alice", bob, "bob", fmt.Sprint("hello ", i))
		bob.says("bob", alice, "alice", fmt.Sprint("hello ", i))
	}
	elsewhere := servers[0].login("bob")
	if why := bob.ends(); why != kicked {
		t.Errorf("%v", why)
	}
	alice.says("alice", elsewhere, "bob", "there you are")
	if got := servers[1].stats(); got["kicked"] != 1 || got["delivered"] != 4 {
		t.Errorf("%v", got)
	}
	bob = servers[1].login("bob")
	if why := elsewhere.ends(); why != kicked {
		t.Errorf("%v", why)
	}
	alice.says("alice", bob, "bob", "and here again")
	servers[1].Kill()
	alice.outcome("bob", "no_route") // after the resume window: nobody comes back
	bob = servers[0].login("bob")
	alice.says("alice", bob, "bob", "welcome back")
}

// The terminal's user.
func TestTalk(t *testing.T) {
	s := start(t)
	bob := s.login("bob")
	var out bytes.Buffer
	in, typed := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- talk(t.Context(), s.addr, "alice", "sesame", in, &out) }()
	fmt.Fprintln(typed, "bob good morning")
	bob.reads(event{From: "alice", Text: "good morning"})
	bob.write(event{To: "alice", Text: "and to you", N: 5})
	bob.reads(event{N: 5, Outcome: "acked"})
	fmt.Fprintln(typed, "carol hi")
	typed.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"you are alice", "(1) acked", "bob: and to you", "(2) no_route"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
}
