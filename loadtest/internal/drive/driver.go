// Package drive moves the messages of a load test: it connects to servers, sends what the traffic
// (loadtest/internal/traffic) wants sent, and hands it what arrives.
//
// A [Kind] is a way to do so; see [Kinds]. wire.go drives any protocol on one event loop, and
// leg.go is one of its connections. relay.go, nats.go, redis.go and floor.go are such protocols,
// tls.go encrypts them, and login.go logs in. sdk.go drives the client SDK instead. A driver for
// another server that takes messages is one more file with its kind and its protocol.
package drive

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"distmsg/discovery"
	"distmsg/loadtest/internal/traffic"
)

// A Driver connects to the nodes, sends the messages of a traffic, and passes what arrives to it.
// It grants the exclusive right to the traffic's state: the driver's own calls into the traffic
// have it, and all others get it with Do.
type Driver interface {
	// Send is called by the traffic, which has the exclusive right.
	traffic.Transport
	// Connect opens all connections and binds their IDs. It is called once.
	Connect(ctx context.Context) error
	// Do runs f with the exclusive right and returns after it. It may be called once Connect has
	// succeeded.
	Do(f func())
	// Settle returns when everything has arrived that the nodes wrote before the call.
	Settle(ctx context.Context) error
	// Close ends the connections, gracefully where possible, and frees everything.
	Close()
}

// A Churner is a driver that can change its connections while messages flow. The methods each
// choose a random connection. Their callers have the exclusive right.
type Churner interface {
	// Rebind binds all IDs of a connection again, unless it is down or binds already.
	Rebind()
	// Move moves a connection to another node, or else to another connection at its node. It does
	// nothing if the connection is down or moves already.
	Move()
	// Cut closes a connection, as a network that breaks does. It does nothing if the connection is
	// down or moves.
	Cut()
}

// Config says where a driver connects, and how.
type Config struct {
	Nodes           []string             // where the connections start
	Membership      discovery.Membership // where the nodes are found
	TLS             *tls.Config          // nil: none
	CredentialsFile string               // what each hello shows; empty: none
	Attach          int                  // nodes of each session (the SDK)
	Strategy        string               // how a session chooses among them (the SDK)
}

// A Kind is a way to communicate with a server, and what can be done with it.
type Kind struct {
	Name     string
	Protocol string // what both sides speak, such as "NATS"
	// Server is what must run at the addresses, such as "a nats-server". It is empty for a relay
	// node: the load test can start one, and discovery can find them.
	Server    string
	Multicast bool // one message may have several receivers
	Broadcast bool // one message may go to all other connections, without ack; each has one ID
	Login     bool // the driver can show credentials
	Attach    bool // a session may be attached to several nodes
	Delays    bool // receivers may wait before they ack
	Reports   bool // the server reports messages that it cannot deliver
	Churns    bool // the driver is a Churner

	make func(*traffic.Traffic, *Config) Driver
	// ask sends hello to addr and returns what is wrong there. It is nil if nobody has to ask.
	ask func(ctx context.Context, cfg *Config, addr string, named bool) error
}

// Kinds returns all kinds of drivers.
func Kinds() []Kind { return []Kind{relayKind(), sdkKind(), natsKind(), redisKind(), floorKind()} }

// everybody is the channel, or subject, of all connections. It is nil if no message goes to
// several.
func everybody(t *traffic.Traffic) []byte {
	if t.Fanout == 1 {
		return nil
	}
	return fmt.Appendf(nil, "lt-all-%08x", uint32(t.Ledger.Run()))
}

// KindOf returns the kind of this name. known is false if there is none.
func KindOf(name string) (k Kind, known bool) {
	all := Kinds()
	i := slices.IndexFunc(all, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return k, false
	}
	return all[i], true
}

// Names lists the names of the kinds that satisfy a condition: "relay, sdk or nats".
func Names(which func(*Kind) bool) string {
	var names []string
	for _, k := range Kinds() {
		if which(&k) {
			names = append(names, k.Name)
		}
	}
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// New makes a driver for a traffic.
func (k *Kind) New(t *traffic.Traffic, cfg *Config) Driver {
	d := k.make(t, cfg)
	t.Transport = d
	return d
}

// Strategy returns the strategy with this name, by which a session chooses among its nodes.
func Strategy(name string) (s discovery.Strategy, known bool) {
	switch name {
	case "random":
		return discovery.Random(), true
	case "round-robin":
		return discovery.RoundRobin(), true
	case "pair-hash":
		return discovery.PairHash(), true
	}
	return nil, false
}
