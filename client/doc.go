// Package client is the Go SDK of distmsg: it makes a program that holds end users' connections (an
// app server: WebSocket gateway, game server, device hub) send to any user by ID, wherever that user is
// connected, and learn truthfully what became of each message.
//
// # From nothing to a running client
//
// Start a node (go run ./cmd/relay, or an engine inside a test), and attach a session to it:
//
//	s, err := client.Dial(ctx, client.Config{
//		Nodes:   []string{"127.0.0.1:7400"},
//		Handler: func(ctx context.Context, d *client.Delivery) { fmt.Printf("%s to %s: %s\n", d.From, d.To, d.Payload) },
//	})
//	defer s.Close(ctx)
//
// Bind the IDs of the users who are connected to this program, and unbind them when they leave:
//
//	err = s.Bind(ctx, "alice", "bob")
//
// Send from one of them to anybody, and wait for the outcome:
//
//	_, err = s.Send(ctx, client.Message{To: "carol", From: "alice", Payload: []byte("hello")})
//
// A nil error means that carol's handler accepted the message. Every other outcome is an [*Error],
// which says whether the message was delivered, whether a second copy could arrive twice, and
// whether trying again soon is of any use:
//
//	var e *client.Error
//	switch {
//	case err == nil:
//	case errors.As(err, &e) && e.SafeToRetry() && e.Temporary(): // not delivered: try again after a pause
//	case errors.As(err, &e) && e.Delivered() == client.DeliveredUnknown: // timeout, lost: try again if two copies do no harm
//	default: // this message will not get through: no_route says that carol is offline
//	}
//
// [Retry] does what the second case says, until its context ends.
//
// # Three ways to send
//
// [Session.Send] waits for the outcome, [Session.SendAsync] calls back with it, and [Session.Post]
// wants none. Each blocks instead of letting queues grow: the first two while the session's window
// (Config.MaxInFlight, Config.MaxInFlightBytes) is full, Post while the node's byte credit is used up. All end
// with their context.
//
// [Session.Multicast], [Session.MulticastAsync] and [Session.PostMulticast] do the same for one message to many
// IDs: one frame to the node, and one from there to each app server that holds some of them. Each ID has an
// outcome of its own:
//
//	results, err := s.Multicast(ctx, client.Message{From: "alice", Payload: []byte("hello")}, []string{"bob", "carol"})
//	for _, r := range results { // err: nothing was sent at all
//		if r.Err != nil { … } // as Send would have returned it
//	}
//
// A receiver may answer with a payload ([Delivery.Reply]), which makes Send a request. Go values
// travel as msgpack: [SendValue], [HandleValue], Message.Value, [Delivery.ReplyValue], [Reply.Decode].
//
// # Receiving
//
// A [Handler] runs for one message of an ID at a time, in the order they came, and for many IDs at once.
// One that is slow, panics, or ends its goroutine (testing.T.Fatal) stops neither other IDs nor the
// session; when its queue is full, senders
// hear rejected, "receiver busy". Returning means accepted; [Delivery.Reject] and [Delivery.Defer] say
// otherwise. The handler's context carries the message's deadline. A message that has waited beyond
// it is not handled: its sender has heard timeout.
//
// # Who is online
//
// [Session.Lookup] asks for any number of IDs. [Session.Watch] asks, and Config.OnPresence hears what changes
// afterwards, wherever in the cluster the IDs are bound:
//
//	cfg.OnPresence = func(changed []client.Presence) { … } // online: p.Online(), under p.Epoch
//	found, err := s.Watch(ctx, "bob", "carol")
//	s.Unwatch("bob")
//
// What OnPresence says of an ID is newer than what Watch returned, and a greater epoch than another is a later
// binding. Nodes look every 2 seconds, and at once where they know more; an app server that crashed counts as
// online until its session's resume window is over. After a reconnect the session asks anew and tells what
// changed meanwhile; while it is attached to no node, it hears nothing.
//
// # Spread or mesh
//
// With several nodes in a cluster, a session is attached to one of them (mesh, the default), or to more
// (spread: Config.Attach is a number, or [AllNodes]). In a mesh, messages between app servers at different nodes go over
// both: choose it for many app servers, or many nodes. In a spread that takes all nodes the node that a
// message is given to has a connection of the receiver too, so it makes one hop; and the loss of a node costs
// only what is on the way there. It takes a connection from each app server to each node: choose it for few of both. The session
// gets on with what it has while it looks for the rest; nodes tell it where others are.
//
// Config.Strategy chooses the connection of each message. Messages from one ID to another arrive in the order in which one
// goroutine sends them
//
//   - while the session is attached to one node: always, until that changes;
//   - with discovery.PairHash over several: until a node comes or goes, which may change the order of what is on the way then;
//   - with any other strategy over several: only if each is sent after the outcome of the one before, as [Session.Send] called in
//     a loop does. SendAsync and Post promise nothing.
//
// Over several nodes a multicast goes by a connection that is chosen for its sender alone: it keeps no order with other sends.
//
// Binds, unbinds and lookups go over one connection, and over another when that is gone.
//
// When a node drains, the session moves: it attaches to another node (or has others already), sends go there from then
// on, and the old connection is closed when what was delivered on it is answered and what was sent on
// it has its outcome. Nothing is bound again and no send fails for it, provided that there is another node of the cluster.
//
// # When things break
//
// The session finds its way back to a node by itself, resumes, and asserts its IDs again if it must, or if a node asks.
// Sends that were in flight on a connection that died end lost (perhaps delivered) or unreachable (not
// written); sends that come while there is no connection wait for one until their deadline. An ID that
// was bound elsewhere in the meantime is lost and reported to Config.OnKick; the SDK never takes it back.
//
// # Watching the session itself
//
// [Session.Stats] is a snapshot of counters and gauges, for a metrics exporter that comes by; Config.OnOutcome
// hears of each outcome with its round-trip time, for histograms. Config.OnState, OnDrain and OnKick tell of
// nodes that come and go, and of IDs that were lost. Config.Logger (log/slog) gets what an operator should see:
// Info for attachments and drains, Warn for trouble, Error for panics of handlers and callbacks.
//
// # What may be called from where
//
// All methods of [Session] and [Responder] may be called from any goroutine. What this package calls runs
//
//   - a [Handler], OnKick, OnDrain, OnState, OnPostFailed, OnPresence, OnOutcome, and the callbacks of SendAsync and
//     MulticastAsync: on goroutines for that purpose. They may block, and may call everything but Close, which
//     waits for them. None of them waits for another kind; see [Config] and [Session.SendAsync];
//   - an encoder or decoder of a Value: on the goroutine that sends, replies or decodes;
//   - Config.Dialer: on goroutines that look for nodes, also after Dial has returned; Config.Strategy: on each sender's.
//
// # What may change
//
// docs/compatibility.md says what may change before version 1.0, and how. Write literals of Config, Message and other structs with the
// names of their fields: there will be more.
package client
