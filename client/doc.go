// Package client is the Go SDK of distmsg. A program that holds end users' connections (an app
// server: WebSocket gateway, game server, device hub) uses it to send to any user by ID, wherever
// that user is connected, and to learn the true outcome of each message.
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
// A nil error means that carol's handler accepted the message. Every other outcome is an [*Error].
// It says whether the message was delivered, whether a retry could deliver it twice, and whether a
// retry may soon help:
//
//	var e *client.Error
//	switch {
//	case err == nil:
//	case errors.As(err, &e) && e.SafeToRetry() && e.Temporary(): // not delivered: try again after a pause
//	case errors.As(err, &e) && e.Delivered() == client.DeliveredUnknown: // timeout, lost: try again if two copies do no harm
//	default: // this message will not get through: no_route says that carol is offline
//	}
//
// [Retry] does this for the second case, until its context ends.
//
// # Three ways to send
//
// [Session.Send] waits for the outcome, [Session.SendAsync] calls a callback with it, and
// [Session.Post] requests none. Each blocks instead of letting queues grow: the first two while the
// session's window (Config.MaxInFlight, Config.MaxInFlightBytes) is full, Post while the node's
// byte credit is used up. All of them end with their context.
//
// [Session.Multicast], [Session.MulticastAsync] and [Session.PostMulticast] do the same for one
// message to many IDs. The session sends one frame to the node, and the node sends one to each app
// server that holds some of the IDs. Each ID has an outcome of its own:
//
//	results, err := s.Multicast(ctx, client.Message{From: "alice", Payload: []byte("hello")}, []string{"bob", "carol"})
//	for _, r := range results { // err: nothing was sent at all
//		if r.Err != nil { … } // as Send would have returned it
//	}
//
// A receiver may answer with a payload ([Delivery.Reply]). This turns Send into a request. Go
// values travel as msgpack: [SendValue], [HandleValue], Message.Value, [Delivery.ReplyValue],
// [Reply.Decode].
//
// # Receiving
//
// A [Handler] runs for one message of an ID at a time, in the order of arrival, and for many IDs at
// once. A handler that is slow, panics, or ends its goroutine (testing.T.Fatal) affects neither
// other IDs nor the session. When its queue is full, sends end with rejected, "receiver busy". A
// handler that returns has accepted the message, unless it calls [Delivery.Reject] or
// [Delivery.Defer]. The handler's context has the message's deadline. A message that has waited
// beyond it is not handled, because its sender has already heard timeout.
//
// # Who is online
//
// [Session.Lookup] asks for any number of IDs. [Session.Watch] asks too, and Config.OnPresence is
// called for later changes, wherever in the cluster the IDs are bound:
//
//	cfg.OnPresence = func(changed []client.Presence) { … } // online: p.Online(), under p.Epoch
//	found, err := s.Watch(ctx, "bob", "carol")
//	s.Unwatch("bob")
//
// What OnPresence reports about an ID is newer than what Watch returned, and a greater epoch means
// a later binding. Nodes check every 2 seconds, and report changes at once if they learn of them
// earlier. An app server that has crashed counts as online until its session's resume window is
// over. After a reconnect, the session asks again and reports what has changed meanwhile. While it
// is not attached to a node, it learns nothing.
//
// # Spread or mesh
//
// With several nodes in a cluster, a session is attached to one of them (mesh, the default), or to
// more (spread: Config.Attach is a number, or [AllNodes]). In a mesh, messages between app servers
// at different nodes pass both nodes. Choose it for many app servers or many nodes. In a spread
// over all nodes, the node that receives a message also has a connection of the receiver, so the
// message takes one hop, and the loss of a node costs only the messages in flight there. A spread
// needs a connection from each app server to each node. Choose it for few of both. The session
// works with the attachments that it has while it looks for the others. Nodes announce where the
// others are.
//
// Config.Strategy chooses the connection of each message. Whether messages from one ID to another,
// sent by one goroutine, arrive in the order of the calls depends on the attachments:
//
//   - While the session is attached to one node, they do, until that changes.
//   - Over several nodes with discovery.PairHash, they do until a node joins or leaves. This may
//     change the order of messages in flight at that time.
//   - Over several nodes with any other strategy, they do only if each is sent after the outcome of
//     the one before, as [Session.Send] called in a loop does. SendAsync and Post promise nothing.
//
// Over several nodes, the connection of a multicast depends only on its sender, so a multicast is
// not ordered with other sends.
//
// Binds, unbinds and lookups go over one connection, and over another when that one has closed.
//
// When a node drains, the session moves. It attaches to another node (or already has others), and
// sends go there from then on. It closes the old connection when everything delivered on it is
// answered and everything sent on it has its outcome. Nothing is bound again, and no send fails
// because of the move, if there is another node in the cluster.
//
// # When things break
//
// The session reconnects to a node by itself, resumes, and re-asserts its IDs if necessary or if a
// node asks for that. Sends in flight on a connection that died end with lost (perhaps delivered)
// or unreachable (not written). New sends wait for a connection until their deadline. If an ID was
// bound elsewhere meanwhile, the session has lost it and calls Config.OnKick. The SDK never takes
// it back.
//
// # Watching the session itself
//
// [Session.Stats] returns a snapshot of counters and gauges, for a metrics exporter.
// Config.OnOutcome is called with each outcome and its round-trip time, for histograms.
// Config.OnSpan is called with spans of messages whose traces are sampled; package client/otlp
// exports them. Config.OnState, OnDrain and OnKick report nodes that come and go, and lost IDs.
// Config.Logger (log/slog) receives what an operator should see: Info for attachments and drains,
// Warn for trouble, Error for panics of handlers and callbacks.
//
// # What may be called from where
//
// Any goroutine may call all methods of [Session] and [Responder]. The application's code runs
//
//   - a [Handler], OnKick, OnDrain, OnState, OnPostFailed, OnPresence, OnOutcome, OnSpan, and the
//     callbacks of SendAsync and MulticastAsync: on separate goroutines. They may block, and may
//     call everything except Close, which waits for them. None of them waits for another kind; see
//     [Config] and [Session.SendAsync];
//   - an encoder or decoder of a Value: on the goroutine that sends, replies or decodes;
//   - Config.Dialer and Config.CredentialsFunc: on goroutines that look for nodes, also after Dial
//     has returned; Config.Strategy: on each sender's.
//
// # What may change
//
// docs/compatibility.md says what may change before version 1.0, and how. Use field names in
// literals of Config, Message and other structs, because fields will be added.
package client
