// Package engine is a relay node as a library: it holds the connections of app servers, knows which
// client ID is bound where, and hands messages from one to the other with a truthful outcome.
//
// The zero Config is a node on 127.0.0.1:7400. New checks the configuration, Run serves until its
// context ends:
//
//	e, err := engine.New(engine.Config{Addr: "127.0.0.1:0"})
//	if err != nil {
//		return err
//	}
//	go func() { failed <- e.Run(ctx) }()
//	<-e.Ready()
//	log.Println("clients connect to", e.Addr())
//
// A program that holds end users itself binds their IDs in its own process, with the same outcomes,
// order and limits as an app server that connects over TCP:
//
//	s, err := e.OpenInProcess(ctx, engine.InProcessConfig{Handler: func(m *engine.Message) { … }})
//	err = s.Bind(ctx, "1001")
//	reply, err := s.Send(ctx, "1001", "1002", []byte("hello"))
//
// With a Membership and a Registry that others share, the node is one of a cluster: messages to IDs at other nodes
// go there over a link, with the same outcomes. discovery.Peers and discovery/zookeeper are memberships, routing/redis
// is such a registry.
//
// Hooks decide who may connect, bind and send. Stats is what there is to measure; package
// internal/admin of the relay command turns it into Prometheus metrics.
//
// # How it is built
//
// The files follow a message: acceptor.go takes connections, loop.go is an event loop and its end of
// iteration, dispatch.go turns bytes into frames, relay.go is the hot path, mailbox.go carries
// messages between loops, conn.go writes. session.go and binding.go are what happens off the loops, in the
// lanes of lane.go. Of a cluster, cluster.go and joining.go know which nodes there are, link.go is the connection to one of them,
// forward.go what goes over it, resolve.go and hold.go what waits for the registry's word, and upkeep.go tells the registry
// again what it may have missed. docs/architecture.md tells why.
//
// Who owns what: a loop owns its connections, their buffers, its pending acks and its counters, and
// nobody else touches them. Everything else reaches a loop through its inbox. Locks are few and none
// is held while another is taken: inbox.mu, loop.pubMu, lane.mu, sharedBufs.mu, Engine.fenceMu, presences.mu,
// health.mu, resolver.mu, cluster.announceMu (while the membership is told), and two under which inbox.mu (by post) may be taken:
// cluster.mu, and an InProcess.mu, under which sharedBufs.mu may be, too.
package engine
