// Command embed is a chat server. End users connect to it with WebSockets, and it embeds a distmsg
// engine, so there is no separate relay. It runs alone, or as one of several that share a Redis and
// a ZooKeeper. A user can write to any other, wherever that user is connected.
package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/discovery/zookeeper"
	"distmsg/engine"
	"distmsg/routing"
	"distmsg/routing/redis"
)

const (
	maxText     = 32 << 10        // bytes of a message; the engine answers too_large to more
	maxFrame    = 1 << 20         // bytes of a WebSocket message; a larger one closes the WebSocket
	sendTimeout = 5 * time.Second // how long a message may take
	kicked      = websocket.StatusCode(4001)
)

func main() {
	var s server
	flag.StringVar(&s.http, "http", "127.0.0.1:7030", "address where users connect")
	flag.StringVar(&s.token, "token", "sesame", "token that users must give")
	flag.DurationVar(&s.patience, "patience", 5*time.Second, "how long a user may leave messages unread before the server closes the connection")
	flag.StringVar(&s.redis, "redis", "", "for a cluster: redis://HOST:PORT/DATABASE")
	flag.StringVar(&s.zookeeper, "zookeeper", "", "for a cluster: zk://HOST:PORT/PATH")
	flag.StringVar(&s.secret, "secret-file", "", "for a cluster: file with a secret of at least 16 bytes, the same on all servers")
	connect := flag.String("connect", "", "chat from this terminal, as a user of the server at this address")
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
	serving                               context.Context // ends when the server stops
	session                               *client.Session // holds the names of all users
	kicks, delivered, undelivered         atomic.Int64

	chats sync.WaitGroup // connections of users

	mu    sync.Mutex
	users map[string]*user // guarded by mu; by name
}

// run serves until ctx ends or something fails.
func (s *server) run(ctx context.Context) error {
	cfg := engine.Config{Addr: "none", MaxPayload: maxText, Hooks: s.hooks()}
	node, leave, err := s.newNode(ctx, cfg)
	if err != nil {
		return err
	}
	defer leave()
	listener, err := net.Listen("tcp", s.http)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.serving, s.users = serving, make(map[string]*user)
	running, end := context.WithCancel(context.Background()) // the node ends after all else
	defer end()
	ended := make(chan error, 1)
	go func() {
		err := node.Run(running)
		stop(err)
		ended <- err
	}()
	select { // a node of a cluster waits for the others first
	case <-node.Ready():
	case <-ctx.Done():
		end()
		return <-ended
	case err := <-ended:
		return err
	}
	s.session, err = client.Dial(serving, client.Config{
		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(), OnKick: s.kicked,
	})
	if err != nil {
		end()
		<-ended
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chat", s.chat)
	mux.HandleFunc("GET /stats", s.stats)
	web := &http.Server{Handler: mux, ReadHeaderTimeout: sendTimeout}
	go func() { stop(web.Serve(listener)) }()
	slog.Info("users connect", "addr", listener.Addr().String(), "node", node.NodeID())
	<-serving.Done()
	web.Close()
	s.chats.Wait() // they end with serving
	closing, cancel := context.WithTimeout(running, sendTimeout)
	defer cancel()
	s.session.Close(closing) // first the session, then the node
	end()
	err = <-ended
	if err == nil && ctx.Err() == nil {
		err = context.Cause(serving)
	}
	return err
}

// newNode makes a node that is alone, or one of several servers. Those share who is bound where,
// and which servers there are.
func (s *server) newNode(ctx context.Context, cfg engine.Config) (node *engine.Engine, leave func(), err error) {
	if s.redis == "" && s.zookeeper == "" {
		node, err = engine.New(cfg)
		return node, func() {}, err
	}
	secret, err := os.ReadFile(s.secret)
	if err != nil {
		return nil, nil, fmt.Errorf("a cluster needs -secret-file: %w", err)
	}
	members, err := zookeeper.Open(ctx, zookeeper.Config{URL: s.zookeeper})
	if err != nil {
		return nil, nil, err
	}
	cfg.Cluster, cfg.PeerAddr, cfg.Membership, cfg.ClusterSecret = "chat", "127.0.0.1:0", members, secret
	node, err = engine.NewShared(ctx, cfg, func(ctx context.Context, share engine.Share) (routing.Registry, error) {
		return redis.Open(ctx, redis.Config{URL: s.redis, Prefix: share.Cluster, Fingerprint: share.Fingerprint, Gone: share.Gone})
	})
	if err != nil {
		members.Close()
	}
	return node, members.Close, err
}

// hooks count. They run on event loops and must not block.
func (s *server) hooks() engine.Hooks {
	return engine.Hooks{
		Deliver: func(routing.SessionID, string, *codec.Deliver) codec.Code {
			s.delivered.Add(1)
			return codec.CodeOK
		},
		Undeliverable: func(*codec.Deliver, codec.Code) { s.undelivered.Add(1) },
	}
}

func (s *server) stats(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	online := len(s.users)
	s.mu.Unlock()
	json.NewEncoder(w).Encode(map[string]int64{"online": int64(online), "delivered": s.delivered.Load(),
		"undelivered": s.undelivered.Load(), "kicked": s.kicks.Load()})
}

// chat serves one user: one WebSocket, and one name that the session holds.
func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	if subtle.ConstantTimeCompare([]byte(r.FormValue("token")), []byte(s.token)) != 1 || id == "" || len(id) > codec.MaxID {
		http.Error(w, "who are you? id is missing or too long, or token is wrong", http.StatusUnauthorized)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered the request
	}
	s.chats.Add(1)
	defer s.chats.Done()
	conn.SetReadLimit(maxFrame)
	defer conn.CloseNow()
	defer context.AfterFunc(s.serving, func() { conn.Close(websocket.StatusGoingAway, "the server stops") })()
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	u := newUser(id, conn, s.patience)
	go u.writeAll(ctx)
	s.login(id, u)
	defer s.logout(id, u)
	if err := s.settle(ctx, id); err != nil {
		slog.Warn("cannot log in", "id", id, "error", err)
		conn.Close(websocket.StatusTryAgainLater, "you cannot log in at the moment")
		return
	}
	u.readAll(ctx, s.session)
}

// login makes u the user with that name. One who has it already is kicked.
func (s *server) login(id string, u *user) {
	s.mu.Lock()
	old := s.users[id]
	s.users[id] = u
	s.mu.Unlock()
	if old != nil {
		s.kick(old)
	}
}

// logout gives the name back, unless somebody else has it by now.
func (s *server) logout(id string, u *user) {
	s.mu.Lock()
	mine := s.users[id] == u
	if mine {
		delete(s.users, id)
	}
	s.mu.Unlock()
	if !mine {
		return
	}
	if err := s.settle(s.serving, id); err != nil && s.serving.Err() == nil {
		slog.Warn("cannot log out", "id", id, "error", err)
	}
}

// settle has the session hold the name if there is a user with it, and only then. Somebody may log
// in or out meanwhile, so it looks again.
func (s *server) settle(ctx context.Context, id string) (err error) {
	for {
		u := s.user(id)
		if u != nil {
			err = s.session.BindWith(ctx, client.BindOptions{Handler: u.receive}, id)
		} else {
			err = s.session.Unbind(ctx, id)
		}
		if err != nil || s.user(id) == u {
			return err
		}
	}
}

func (s *server) user(id string) *user {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[id]
}

// kicked hears that a name was bound at another server.
func (s *server) kicked(k client.Kick) {
	if _, held := s.session.Epoch(k.ID); held {
		return // and has been bound here again since
	}
	s.mu.Lock()
	u := s.users[k.ID]
	delete(s.users, k.ID)
	s.mu.Unlock()
	if u != nil {
		s.kick(u)
	}
}

func (s *server) kick(u *user) {
	s.kicks.Add(1)
	go u.conn.Close(kicked, "you have logged in elsewhere") // it waits for the user's answer
}
