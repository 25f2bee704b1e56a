// Package engine is a relay node as a library: it holds the connections of app servers, knows which
// client ID is bound where, and hands messages from one to the other with a truthful outcome.
//
// # From nothing to a running engine
//
// The zero Config is a node on 127.0.0.1:7400. [New] checks the configuration, [Engine.Run] serves
// until its context ends, and [Engine.Ready] says when clients may come:
//
//	node, err := engine.New(engine.Config{Addr: "127.0.0.1:0"})
//	if err != nil {
//		return err // it names every field that cannot be
//	}
//	ended := make(chan error, 1)
//	go func() { ended <- node.Run(ctx) }()
//	select {
//	case <-node.Ready():
//		log.Println("clients connect to", node.Addr())
//	case err := <-ended:
//		return err // it cannot start
//	}
//
// Run returns nil if its context ended, and an error for any other cause. There are no globals: a
// process may run several engines, each once. A program with an engine should have GOMAXPROCS of at
// least Config.Loops+1.
//
// # Clients in the same process
//
// A program that holds end users itself uses the SDK, package client, with [Engine.Dialer]. It
// connects in memory and needs no listener (Addr: "none"):
//
//	session, err := client.Dial(ctx, client.Config{
//		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(),
//		Handler: func(ctx context.Context, d *client.Delivery) { d.Reply([]byte("got it")) },
//	})
//	err = session.Bind(ctx, "1001")
//	reply, err := session.Send(ctx, client.Message{From: "1001", To: "1002", Payload: []byte("hello")})
//
// Everything that package client says holds here as well. One session holds all users of a program:
// each ID has a queue of its own and costs no connection. To use all event loops, open a session for
// each of them and spread the IDs. examples/embed is a WebSocket server with one session.
//
// # Hooks
//
// [Hooks] are a few optional functions that decide who may connect (Authenticate), bind, send and
// receive (Deliver), and observe what could not be delivered, which IDs are lost and which sessions
// come and go. Each says on which goroutine it runs. [Engine.Stats] is what there is to measure.
//
// # Clusters
//
// With a Membership and a Registry that others share, the node is one of a cluster: messages to IDs
// at other nodes go there over a link, with the same outcomes. discovery.Peers and
// discovery/zookeeper are memberships, routing/redis is such a registry; Config.ClusterSecret is
// what the nodes know each other by. [Engine.Drain] makes a node leave without a gap.
//
// # How it is built
//
// The files follow a message. acceptor.go takes connections. loop.go is an event loop, iteration.go
// the end of its iterations, pace.go how long they are, turns.go what waits for the next one.
// read.go turns bytes into frames, and dispatch.go gives each to who handles it. send.go is the hot
// path: it makes a deliver of a send. settle.go ends sends with what their receivers said, and
// bounce.go takes messages back. multicast*.go is a message to many, longframe.go handles one in
// slices. mailbox.go and inbox.go carry messages between loops, output.go writes, conn.go is a
// connection's life.
//
// internal/directory is what may wait for the registry, off the loops, and office.go what it has
// the loops do. hooks.go is where hooks are called from. wire.go is what carries the bytes: a
// socket, or a pipe in memory (pipe.go, dialer.go). clock.go is the time that loops go by, stall.go
// says which of them stand still, and fence.go what follows a stop. Of a cluster, internal/peers
// knows which nodes there are and dials them, cluster.go is what it needs of the engine, link.go is
// the connection to one of them, and identity.go what this node says of itself. forward.go is what
// goes over a link, park.go and hold.go what waits on a loop for the registry's answer.
// docs/architecture.md tells why.
//
// Who owns what: a loop owns its connections, their buffers, its pending acks and its counters, and
// nobody else touches them. Everything else reaches a loop through its inbox.
//
// # Locks
//
// Locks are few. A lock may be taken under another one only as these lines say, outer > inner:
//
//	Engine.fenceMu > directory.watcher.mu
//	cluster.mu > peers.Members.mu
//	directory.room.mu > directory.refusals.mu
//	directory.takeovers.mu > directory.refusals.mu
//	directory.watcher.mu > inbox.mu, directory.refusals.mu
//	half.mu > sharedBufs.mu
//	peers.Peers.taking > port.mu, peers.Members.mu, peers.twins.mu
//	port.mu > inbox.mu
//	upstream.writing > inbox.mu, half.mu
//
// No other lock is taken under these, and none under loop.pubMu, joins.mu, mailRounds.mu,
// peers.Announcer.mu, directory.lane.mu, directory.doubts.mu, directory.holders.mu,
// directory.kickMemory.mu, directory.monitoredRegistry.mu, directory.overs.mu,
// directory.presences.mu, directory.releases.mu, directory.resolver.mu and directory.untold.mu. A
// test in internal/docs reads the code and holds it to this list.
package engine
