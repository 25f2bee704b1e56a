package zookeeper_test

import (
	"context"
	"fmt"
	"os"

	"distmsg/discovery"
	"distmsg/discovery/zookeeper"
)

// A node announces itself and follows who else is there.
func ExampleOpen() {
	ctx := context.Background()
	m, err := zookeeper.Open(ctx, zookeeper.Config{
		URL:  "zk://10.0.0.1:2181,10.0.0.2:2181/distmsg",
		Auth: os.Getenv("DISCOVERY_AUTH"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	self := discovery.Record{ID: "node-1", Incarnation: 7, Addr: "10.0.1.1:7400", PeerAddr: "10.0.1.1:7402"}
	if err := m.Announce(ctx, self); err != nil {
		fmt.Println(err)
	}
	m.Watch(ctx, func(all []discovery.Record) { fmt.Println(all) })
}

// An app server only looks.
func ExampleMembership_Nodes() {
	m, err := zookeeper.Open(context.Background(), zookeeper.Config{URL: "zk://10.0.0.1:2181/distmsg", ReadOnly: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	nodes, changed := m.Nodes() // or give m to the client as its Membership
	fmt.Println(nodes)
	<-changed
}
