// Package engine is a relay node as a library. It holds the connections of app servers and knows
// which ID is bound to which session. It relays messages between them and reports a truthful
// outcome for each.
//
// # From nothing to a running engine
//
// The zero Config is a node on 127.0.0.1:7400. [New] checks the configuration. [Engine.Run] serves
// until its context ends. [Engine.Ready] returns a channel that closes when clients may connect:
//
//	node, err := engine.New(engine.Config{Addr: "127.0.0.1:0"})
//	if err != nil {
//		return err // names every field with an invalid value
//	}
//	ended := make(chan error, 1)
//	go func() { ended <- node.Run(ctx) }()
//	select {
//	case <-node.Ready():
//		log.Println("clients connect to", node.Addr())
//	case err := <-ended:
//		return err // the node could not start
//	}
//
// Run returns nil if its context ended, and an error in any other case. The package has no globals.
// A process may run several engines, and each engine runs once. A program with an engine should set
// GOMAXPROCS to Config.Loops+1 or more.
//
// # Clients in the same process
//
// A program that serves end users itself uses the SDK, package client, with [Engine.Dialer]. The
// SDK then connects in memory, and the engine needs no listener (Addr: "none"):
//
//	session, err := client.Dial(ctx, client.Config{
//		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(),
//		Handler: func(ctx context.Context, d *client.Delivery) { d.Reply([]byte("got it")) },
//	})
//	err = session.Bind(ctx, "1001")
//	hello := client.Message{From: "1001", To: "1002", Payload: []byte("hello")}
//	reply, err := session.Send(ctx, hello)
//
// All rules of package client hold here as well. One session holds all users of a program: each ID
// has a queue of its own and costs no connection. To use all event loops, open a session for each
// of them and spread the IDs. examples/embed is a WebSocket server with one session.
//
// # Hooks
//
// [Hooks] are a few optional functions. Some decide who may connect (Authenticate), bind, send and
// receive (Deliver). Others observe messages that could not be delivered, IDs that a session lost,
// and sessions that start and end. Each hook's comment says on which goroutine it runs.
// [Engine.Stats] returns the engine's metrics.
//
// # Clusters
//
// A node with a Membership and a shared Registry is part of a cluster. It forwards messages for IDs
// at other nodes over links, with the same outcomes. discovery.Peers and discovery/zookeeper are
// memberships, and routing/redis is a shared registry. Nodes authenticate each other with
// Config.ClusterSecret. [Engine.Drain] takes a node out without a gap in service.
//
// # How it is built
//
// The files follow a message. acceptor.go accepts connections. loop.go is an event loop.
// iteration.go ends its iterations, pace.go limits how long they are, and turns.go holds the work
// that waits for the next one. read.go turns bytes into frames, and dispatch.go calls the handler
// of each frame. send.go is the hot path: it turns a send into a deliver. settle.go ends sends with
// their receivers' answers, and bounce.go handles messages that come back. multicast*.go sends one
// message to many IDs, and longframe.go handles such a frame in slices. mailbox.go and inbox.go
// carry messages between loops. output.go writes to the socket, and conn.go is a connection's life.
//
// internal/directory does the work that may wait for the registry, off the loops. office.go is the
// interface through which it gives work to the loops. hooks.go calls the hooks, and login.go asks
// one of them who a client is. wire.go is the interface to what carries the bytes: a socket, or a
// pipe in memory (pipe.go, dialer.go). clock.go is the loops' clock, stall.go detects loops that
// are stalled, and fence.go does what must follow a stop. In a cluster, internal/peers knows the
// other nodes and dials them. cluster.go gives it what it needs from the engine, link.go is the
// connection to one node, and peeridentity.go describes this node to others. forward.go sends and
// receives messages over a link, and echo.go asks what is under way there. park.go and hold.go hold
// messages on a loop until the registry answers. docs/architecture.md gives the reasons.
//
// operator.go is what an operator may ask, and answers.go answers it for this node. internal/query
// asks the other nodes, by querylinks.go. survey.go looks at connections for a question, in steps.
//
// Ownership: a loop owns its connections, their buffers, its pending acks and its counters. No
// other goroutine touches them. Other goroutines reach a loop through its inbox.
//
// # Locks
//
// There are few locks. Code may take a lock while it holds another only as these lines say. The
// outer lock stands on the left:
//
//	Engine.fenceMu > directory.watcher.mu
//	cluster.mu > peers.Members.mu
//	directory.room.mu > directory.refusals.mu
//	directory.takeovers.mu > directory.refusals.mu
//	directory.watcher.mu > inbox.mu, directory.refusals.mu
//	half.mu > sharedBufs.mu
//	peers.Peers.taking > port.mu, peers.Members.mu, peers.finder.mu, peers.twins.mu
//	port.mu > inbox.mu
//	upstream.writing > inbox.mu, half.mu
//
// No other lock is taken under these, and none under loop.pubMu, history.mu, joins.mu,
// mailRounds.mu, peers.Announcer.mu, directory.lane.mu, directory.doubts.mu, directory.holders.mu,
// directory.kickMemory.mu, directory.monitoredRegistry.mu, directory.overs.mu,
// directory.presences.mu, directory.releases.mu, directory.resolver.mu, directory.untold.mu,
// limit.Book.mu, query.Desk.mu, rebalancing.mu and sources.mu. A test in internal/docs reads the
// code and holds it to this list.
package engine
