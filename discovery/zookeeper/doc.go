// Package zookeeper finds the nodes of a cluster in ZooKeeper, and registers a node there.
//
//	m, err := zookeeper.Open(ctx, zookeeper.Config{URL: "zk://10.0.0.1,10.0.0.2/distmsg"})
//	…
//	defer m.Close()
//	err = m.Announce(ctx, discovery.Record{ID: "node-1", Incarnation: 7, Addr: "10.0.1.1:7400"})
//	m.Watch(ctx, func(all []discovery.Record) { … })
//
// A program that only reads, such as an app server, sets Config.ReadOnly and uses Nodes.
//
// # What stands in ZooKeeper
//
// Below the path of the URL, here /distmsg, the persistent znode "nodes" has one ephemeral child
// for each node. The child's name is the node's ID, escaped as in a URL, a hyphen, and the
// incarnation in 16 hex digits. So a restarted node never conflicts with its former incarnation.
// Its data is JSON:
//
//	{"version":1,"id":"node-1","incarnation":"0000000000000007","addr":"10.0.1.1:7400",
//	 "peer_addr":"10.0.1.1:7402","state":"serving","load":0}
//
// Fields are only added, and a reader ignores fields that it does not know. A state other than
// "serving" means that the node accepts no new sessions. The version is raised when older readers
// must ignore the record, and they do.
//
// A znode that is not a valid record is left out, logged once, and named by Membership.Skipped.
// This applies to text that is not UTF-8, to names and addresses that are empty, have over 255
// bytes or have control characters, and to data of more than 16 KiB. If there are more than 4,096
// znodes, those that are not known yet are left out as well.
//
// # When ZooKeeper is away
//
// The last membership stays in force, and the node is announced again when ZooKeeper is back. The
// pauses between attempts to connect are random and at most half a second. The sessions of many
// nodes may have expired meanwhile. So nodes that were known before stay listed for 3 s after each
// new connection even if they are not registered (yet). Everything is listed again on each new
// connection, and every 30 s in case a watch was lost. A server that comes back without its data
// refuses its former clients. So a client that has had no session for one and a half session
// timeouts starts again as a new client.
//
// # How it is built
//
// The client library's calls take no context and block for a long time on a silent socket, and its
// events can be lost. So one goroutine, the keeper, makes all calls, one at a time, and closes the
// connection when a call is not answered. The exported methods only leave orders for the keeper and
// read what it found. The library's own goroutines leave their events for it in the link.
//
//	config.go      what can be set; the URL
//	membership.go  the exported methods
//	keeper.go      brings ZooKeeper in line with what was announced, and the membership in line with ZooKeeper
//	link.go        the connection: bounded calls, and what the library's goroutines tell
//	dial.go        which server next and when; what stands between the library and the network
//	record.go      the data of a znode
//	skip.go        what is left out of the list
//	view.go        the membership as readers see it
package zookeeper
