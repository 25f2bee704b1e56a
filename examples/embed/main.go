// Command embed is a chat server: end users connect to it with WebSockets, and it has a distmsg
// engine inside, so there is no relay beside it. It runs alone, or as one of several that share a
// Redis and a ZooKeeper; a user writes to any other, wherever that one is connected.
package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"distmsg/codec"
	"distmsg/discovery/zookeeper"
	"distmsg/engine"
	"distmsg/routing"
	"distmsg/routing/redis"
)

const (
	maxText     = 32 << 10        // bytes of a message; the engine answers too_large to more
	maxFrame    = 1 << 20         // bytes of a WebSocket message; more closes it
	sendTimeout = 5 * time.Second // how long a message may take
	kicked      = websocket.StatusCode(4001)
)

func main() {
	var s server
	flag.StringVar(&s.http, "http", "127.0.0.1:7030", "where users connect")
	flag.StringVar(&s.token, "token", "sesame", "what users show to be let in")
	flag.DurationVar(&s.patience, "patience", 5*time.Second, "how long a user may read nothing while something waits")
	flag.StringVar(&s.redis, "redis", "", "of a cluster: redis://HOST:PORT/DATABASE")
	flag.StringVar(&s.zookeeper, "zookeeper", "", "of a cluster: zk://HOST:PORT/PATH")
	flag.StringVar(&s.secret, "secret-file", "", "of a cluster: a file with the same 16 bytes or more for all")
	connect := flag.String("connect", "", "be a user in this terminal, of the server at this address")
	as := flag.String("as", "", "with -connect: the user's name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := s.run
	if *connect != "" {
		run = func(ctx context.Context) error { return talk(ctx, *connect, *as, s.token, os.Stdin, os.Stdout) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

type server struct {
	http, token, redis, zookeeper, secret string // flags
	patience                              time.Duration
	node                                  atomic.Pointer[engine.Engine]
	online, delivered, undelivered, kicks atomic.Int64 // what the hooks have seen
}

// run serves until ctx ends, or something fails.
func (s *server) run(ctx context.Context) error {
	cfg := engine.Config{Addr: "none", MaxPayload: maxText, MaxPending: maxFrame, MaxInFlight: 64, Hooks: s.hooks()}
	if s.redis != "" || s.zookeeper != "" {
		closeAll, err := s.joinCluster(ctx, &cfg)
		if err != nil {
			return err
		}
		defer closeAll()
	}
	node, err := engine.New(cfg)
	if err != nil {
		return err
	}
	s.node.Store(node)
	listener, err := net.Listen("tcp", s.http)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chat", s.chat)
	mux.HandleFunc("GET /stats", s.stats)
	web := &http.Server{Handler: mux, ReadHeaderTimeout: sendTimeout}
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { stop(web.Serve(listener)) }()
	slog.Info("users connect", "addr", listener.Addr().String(), "node", node.NodeID())
	err = node.Run(serving) // its end is that of all sessions, and theirs that of the WebSockets
	web.Close()
	if err == nil && ctx.Err() == nil {
		err = context.Cause(serving)
	}
	return err
}

// joinCluster opens what the servers share: who is bound where, and which servers there are.
func (s *server) joinCluster(ctx context.Context, cfg *engine.Config) (closeAll func(), err error) {
	if cfg.ClusterSecret, err = os.ReadFile(s.secret); err != nil {
		return nil, fmt.Errorf("a cluster needs -secret-file: %w", err)
	}
	registry, err := redis.Open(ctx, redis.Config{URL: s.redis, Prefix: "chat",
		Gone: func(p routing.Presence) bool { n := s.node.Load(); return n != nil && n.Gone(p) }})
	if err != nil {
		return nil, err
	}
	members, err := zookeeper.Open(ctx, zookeeper.Config{URL: s.zookeeper})
	if err != nil {
		return nil, errors.Join(err, registry.Close())
	}
	cfg.Cluster, cfg.PeerAddr, cfg.Registry, cfg.Membership = "chat", "127.0.0.1:0", registry, members
	return func() { members.Close(); registry.Close() }, nil
}

// hooks let nobody bind a name but that user, and count. Those of messages run on event loops and
// must not block.
func (s *server) hooks() engine.Hooks {
	return engine.Hooks{
		Bind: func(identity, id string) error {
			if identity != id {
				return errors.New("that is somebody else's name")
			}
			return nil
		},
		Deliver: func(routing.SessionID, string, *codec.Deliver) codec.Code {
			s.delivered.Add(1)
			return codec.CodeOK
		},
		Undeliverable: func(*codec.Deliver, codec.Code) { s.undelivered.Add(1) },
		Kick:          func(routing.SessionID, string, string, uint64) { s.kicks.Add(1) },
		SessionUp:     func(routing.SessionID, string) { s.online.Add(1) },
		SessionDown:   func(routing.SessionID, string) { s.online.Add(-1) },
	}
}

func (s *server) stats(w http.ResponseWriter, _ *http.Request) {
	json.NewEncoder(w).Encode(map[string]int64{"online": s.online.Load(), "delivered": s.delivered.Load(),
		"undelivered": s.undelivered.Load(), "kicked": s.kicks.Load()})
}

// chat serves one user: one WebSocket, and one session with one ID.
func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	if subtle.ConstantTimeCompare([]byte(r.FormValue("token")), []byte(s.token)) != 1 || id == "" || len(id) > codec.MaxID {
		http.Error(w, "who are you? id is missing or too long, or token is wrong", http.StatusUnauthorized)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	conn.SetReadLimit(maxFrame)
	// a user who does not read holds up only this session, and not for ever
	write := func(e event) error {
		ctx, cancel := context.WithTimeout(r.Context(), s.patience)
		defer cancel()
		return wsjson.Write(ctx, conn, e)
	}
	session, err := s.node.Load().OpenInProcess(r.Context(), engine.InProcessConfig{
		Identity: id,
		Handler: func(m *engine.Message) { // returning means acked
			if write(event{From: m.From, Text: string(m.Payload)}) != nil {
				m.Reject("the user is gone")
			}
		},
		OnKick: func(string, uint64) { conn.Close(kicked, "you have logged in elsewhere") },
	})
	if err != nil {
		conn.Close(websocket.StatusTryAgainLater, "the server stops")
		return
	}
	defer s.end(session)
	defer conn.CloseNow()
	go func() { <-session.Done(); conn.Close(websocket.StatusGoingAway, "the server stops") }()
	if err := session.Bind(r.Context(), id); err != nil {
		slog.Warn("cannot log in", "id", id, "error", err)
		conn.Close(websocket.StatusTryAgainLater, "you cannot log in at the moment")
		return
	}
	for {
		var m event
		if wsjson.Read(r.Context(), conn, &m) != nil {
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), sendTimeout)
		// while 64 are under way it waits: nothing is read
		session.SendAsync(ctx, id, m.To, []byte(m.Text), func(_ []byte, err error) {
			cancel()
			write(ended(m.N, err))
		})
	}
}

// end closes the session of a user who has gone. What is still being written to them ends with the
// connection.
func (s *server) end(session *engine.InProcess) {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	if err := session.Close(ctx); err != nil {
		slog.Warn("a user's session", "error", err)
	}
}
