// Package dns finds the nodes of a cluster by DNS: a headless service of Kubernetes, Consul, or
// plain records.
//
//	m, err := dns.Open(ctx, dns.Config{URL: "dns://relay.default.svc:7402"})
//	…
//	defer m.Close()
//	m.Watch(ctx, func(all []discovery.Record) { … })
//
// # What DNS says
//
// DNS names addresses. It does not say which nodes are there, nor whether they live. So the records
// of this membership have a PeerAddr and no ID, and [Membership.Announce] changes nothing. An
// engine asks the addresses which nodes are there, and hears the rest from the nodes themselves,
// over its links. The port in the URL is then that for links. A program that only reads, such as an
// app server, names the port for clients and uses [Membership.Nodes].
//
// With a port in the URL, the name has A or AAAA records, and PeerName is that name. Without a
// port, the name has SRV records, which name hosts and ports; PeerName is the host. A node's
// certificate for links must be for its PeerName.
//
// # When DNS does not answer
//
// Every few seconds everything is looked up again. If a lookup fails, or finds nothing, the last
// list stays in force, and [Membership.Err] says why. The same holds for each host of a SRV record.
// If DNS knows no address at the start, the membership waits for the first: Watch calls nothing
// until then.
//
//	config.go      what can be set; the URL
//	membership.go  the exported methods; what readers see
//	resolve.go     one round of lookups
package dns
