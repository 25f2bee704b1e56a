package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"distmsg/discovery"
	"distmsg/internal/cli"
)

// options are the flags of relay serve.
type options struct {
	listen, adminListen, advertise string
	insecureListen                 bool
	adminHosts                     []string
	loops                          int
	maxSessionIDs, maxNodeIDs      int
	maxNodeWatched                 int
	memoryBudget                   byteSize // 0: the engine's default
	nodeID                         string
	resumeWindow, verifyPeriod     time.Duration

	cluster                   string
	secretFile                string
	peerListen, peerAdvertise string
	discovery                 string
	discoveryAuthFile         string
	peerList                  string
	peers                     []discovery.Record // the parsed peerList

	registry                  string
	registryUsername          string
	registryPasswordFile      string
	sentinelPasswordFile      string
	registryCA                string
	registryCert, registryKey string
	registryBuckets           int
	drainTimeout              time.Duration
	logLevel, logFormat       string
}

const (
	// turns the admin server off as the value of --admin-listen, as does an empty string
	noAdmin        = "none"
	memoryRegistry = "memory" // as the value of --registry: a registry in this node's memory
)

func (o *options) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.listen, "listen", "127.0.0.1:7400", "`address` for clients; port 0 picks a free one")
	f.StringVar(&o.advertise, "advertise", "", "`address` that clients are told to come to (default: that of --listen)")
	f.StringVar(&o.adminListen, "admin-listen", "127.0.0.1:7401", "`address` for HTTP: /healthz, /readyz, /metrics; none turns it off")
	f.StringSliceVar(&o.adminHosts, "admin-host", nil, "`names` that HTTP requests may ask for, besides localhost and IP addresses (default: every name, but none if\n--admin-listen is a loopback address: a web page could have its name resolve to that)")
	f.BoolVar(&o.insecureListen, "insecure-listen", false, "allow addresses that other machines can reach, without authentication")
	f.IntVar(&o.loops, "loops", runtime.NumCPU(), "event loops, `n` of them; the default is the number of CPUs")
	f.IntVar(&o.maxSessionIDs, "max-session-ids", 1_000_000, "IDs, `n` of them, that one session may have bound at this node; a bind beyond it ends overflow")
	f.IntVar(&o.maxNodeIDs, "max-node-ids", 10_000_000, "the same for all sessions together; `n` IDs take some 250 bytes of memory each")
	f.IntVar(&o.maxNodeWatched, "max-node-watched", 1_000_000, "IDs that all connections together may watch, `n` of them; each takes some 200 bytes of memory")
	f.Var(&o.memoryBudget, "memory-budget", "memory that the node may take, `size`, as in 2GiB: the runtime's memory limit unless GOMEMLIMIT is set.\n"+
		"Connections may hold half of it (default: half of the memory of the machine or the cgroup)")
	f.StringVar(&o.nodeID, "node-id", "", "`name` of this node (default 16 random hex digits)")
	f.DurationVar(&o.resumeWindow, "resume-window", 10*time.Second, "how long a session outlives its last connection; all nodes have to agree")
	f.DurationVar(&o.verifyPeriod, "verify-period", 5*time.Minute, "how long it takes to compare all bindings and remembered routes of this node with the registry, slowly and all the time")

	f.StringVar(&o.cluster, "cluster", "distmsg", "`name` of the cluster: nodes of another are refused, and keys in Redis begin with it")
	f.StringVar(&o.discovery, "discovery", "", "`URL` of ZooKeeper, where the nodes find each other: zk://HOST:PORT,HOST:PORT/PATH")
	f.StringVar(&o.discoveryAuthFile, "discovery-auth-file", "", "`file` with user:password for ZooKeeper (or in "+envDiscoveryAuth+")")
	f.StringVar(&o.peerList, "peers", "", "the other nodes, instead of --discovery: `ID=ADDRESS/PEER-ADDRESS,...`, for clients and for nodes.\n"+
		"A list cannot tell dead nodes from those that cannot be reached: one without a link\nfor longer than the resume window counts as dead")
	f.StringVar(&o.peerListen, "peer-listen", "", "`address` for other nodes, which have to know the cluster's secret (default 127.0.0.1:7402)")
	f.StringVar(&o.peerAdvertise, "peer-advertise", "", "`address` that other nodes are told to come to (default: that of --peer-listen)")
	f.StringVar(&o.secretFile, "cluster-secret-file", "", "`file` with the secret that all nodes share, of 16 bytes and more (or in "+envSecret+")")

	f.StringVar(&o.registry, "registry", memoryRegistry, "where the bindings are kept, `URL`: memory, or that of Redis, with rediss for TLS: redis://HOST:PORT/DB,\n"+
		"redis-sentinel://HOST:PORT,HOST:PORT/MASTER or redis-cluster://HOST:PORT,HOST:PORT")
	f.StringVar(&o.registryUsername, "registry-username", "", "`user` of Redis (default: its default user)")
	f.StringVar(&o.registryPasswordFile, "registry-password-file", "", "`file` with the password for Redis (or in "+envRegistryPassword+")")
	f.StringVar(&o.sentinelPasswordFile, "registry-sentinel-password-file", "", "`file` with the password for the sentinels (or in "+envSentinelPassword+")")
	f.StringVar(&o.registryCA, "registry-ca-file", "", "PEM `file`: who signs Redis's certificate (default: those the system trusts)")
	f.StringVar(&o.registryCert, "registry-cert-file", "", "PEM `file` with this node's certificate for Redis")
	f.StringVar(&o.registryKey, "registry-key-file", "", "PEM `file` with the key of that certificate")
	f.IntVar(&o.registryBuckets, "registry-buckets", 16384, "hashes, `n` of them, that the bindings are spread over; one for 50 to 100 IDs is best.\n"+
		"All nodes have to agree, for as long as the data stands")

	f.DurationVar(&o.drainTimeout, "drain-timeout", 10*time.Second, "the longest that draining may take")
	f.StringVar(&o.logLevel, "log-level", "info", "`level`: debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "`format`: text or json")
}

// clustered reports whether this node is one of several.
func (o *options) clustered() bool { return o.discovery != "" || o.peerList != "" }

// check rejects invalid flags. It resolves the addresses to listen on only once, so that the node
// uses exactly the address that was checked.
func (o *options) check() error {
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"--drain-timeout", o.drainTimeout}, {"--resume-window", o.resumeWindow}} {
		if d.value <= 0 {
			return cli.Usagef("%s %v must be over 0", d.flag, d.value)
		}
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"--max-session-ids", o.maxSessionIDs}, {"--max-node-ids", o.maxNodeIDs}, {"--max-node-watched", o.maxNodeWatched}} {
		if n.value <= 0 {
			return cli.Usagef("%s %d must be over 0", n.flag, n.value)
		}
	}
	if o.verifyPeriod < time.Second {
		return cli.Usagef("--verify-period %v must be at least 1s", o.verifyPeriod)
	}
	if o.nodeID != "" {
		if err := discovery.CheckName(o.nodeID); err != nil {
			return cli.Usagef("--node-id %v: give this node a name of 1 to %d bytes", err, discovery.MaxText)
		}
	}
	if strings.ContainsFunc(o.cluster, oddInName) || len(o.cluster) > discovery.MaxText {
		return cli.Usagef("--cluster %s: want a name of up to %d bytes, without spaces and without any of {}[]*?\\", brief(o.cluster), discovery.MaxText)
	}
	for _, check := range []func() error{o.checkPasswords, o.checkRegistry, o.checkCluster, o.checkAddrs} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// brief quotes a value of the command line, and only the beginning of a long one.
func brief(s string) string {
	const enough = 80
	if len(s) > enough {
		return fmt.Sprintf("%q…", s[:enough])
	}
	return strconv.Quote(s)
}

// oddInName reports whether a cluster's name must not contain r: keys in Redis, and patterns for
// them, begin with the name.
func oddInName(r rune) bool {
	return !unicode.IsPrint(r) || r == ' ' || r == utf8.RuneError || strings.ContainsRune(`{}[]*?\`, r)
}

// checkPasswords rejects passwords on the command line, where every user of this machine could read
// them. It does not quote what it finds.
func (o *options) checkPasswords() error {
	if strings.Contains(o.registry, "@") {
		return cli.Usagef("--registry holds a user or a password, and lists of processes would show it: " +
			"use --registry-username, and --registry-password-file or the environment's " + envRegistryPassword)
	}
	if strings.Contains(o.discovery, "@") {
		return cli.Usagef("--discovery holds a user or a password, and lists of processes would show it: " +
			"use --discovery-auth-file or the environment's " + envDiscoveryAuth)
	}
	return nil
}

func (o *options) checkRegistry() error {
	if o.registry == memoryRegistry {
		return needless("is for Redis: add --registry redis://HOST:PORT",
			flagValue{"--registry-username", o.registryUsername}, flagValue{"--registry-password-file", o.registryPasswordFile},
			flagValue{"--registry-sentinel-password-file", o.sentinelPasswordFile}, flagValue{"--registry-ca-file", o.registryCA},
			flagValue{"--registry-cert-file", o.registryCert}, flagValue{"--registry-key-file", o.registryKey})
	}
	if !strings.HasPrefix(o.registry, "rediss") {
		return needless("is for TLS, and --registry does not begin with rediss",
			flagValue{"--registry-ca-file", o.registryCA}, flagValue{"--registry-cert-file", o.registryCert}, flagValue{"--registry-key-file", o.registryKey})
	}
	if (o.registryCert == "") != (o.registryKey == "") {
		return cli.Usagef("--registry-cert-file and --registry-key-file go together: give both, or neither")
	}
	return nil
}

type flagValue struct{ flag, value string }

// needless rejects flags that would have no effect.
func needless(why string, flags ...flagValue) error {
	for _, f := range flags {
		if f.value != "" {
			return cli.Usagef("%s %s", f.flag, why)
		}
	}
	return nil
}

func (o *options) checkCluster() error {
	if o.discovery == "" {
		if err := needless("is for ZooKeeper: add --discovery zk://HOST:PORT", flagValue{"--discovery-auth-file", o.discoveryAuthFile}); err != nil {
			return err
		}
	}
	if !o.clustered() {
		return needless("is for a node of a cluster: add --discovery or --peers",
			flagValue{"--peer-listen", o.peerListen}, flagValue{"--peer-advertise", o.peerAdvertise})
	}
	flag := "--peers"
	if o.discovery != "" {
		flag = "--discovery"
	}
	switch {
	case o.discovery != "" && o.peerList != "":
		return cli.Usagef("--discovery and --peers exclude each other: the other nodes are found, or given")
	case o.registry == memoryRegistry:
		return cli.Usagef("%s makes this node one of a cluster, which needs a registry that all its nodes share: add --registry redis://HOST:PORT", flag)
	case o.peerList != "" && o.nodeID == "":
		return cli.Usagef("--peers needs --node-id as well: the other nodes list this one by its name")
	}
	var err error
	o.peers, err = parsePeers(o.peerList)
	return err
}

// parsePeers reads ID=CLIENT_ADDR/PEER_ADDR,…
func parsePeers(list string) ([]discovery.Record, error) {
	if list == "" {
		return nil, nil
	}
	var peers []discovery.Record
	known := make(map[string]bool)
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part) // "a=…, b=…"
		id, addrs, found := strings.Cut(part, "=")
		addr, peerAddr, both := strings.Cut(addrs, "/")
		switch {
		case !found || id == "" || !both:
			return nil, cli.Usagef("--peers: %q is not ID=ADDRESS/PEER-ADDRESS, as in n2=10.0.0.2:7400/10.0.0.2:7402", part)
		case known[id]:
			return nil, cli.Usagef("--peers names %q twice: each node needs an ID of its own", id)
		}
		known[id] = true
		if err := discovery.CheckName(id); err != nil {
			return nil, cli.Usagef("--peers: the name of a node %v", err)
		}
		for _, a := range []struct{ what, addr string }{{"the address for clients", addr}, {"the address for nodes", peerAddr}} {
			if err := discovery.CheckAddr(a.addr); err != nil {
				return nil, cli.Usagef("--peers: %s: %s, %s, %v", brief(part), a.what, brief(a.addr), err)
			}
		}
		peers = append(peers, discovery.Record{ID: id, Addr: addr, PeerAddr: peerAddr})
	}
	return peers, nil
}

func (o *options) checkAddrs() error {
	for _, a := range []flagValue{{"--advertise", o.advertise}, {"--peer-advertise", o.peerAdvertise}} {
		if a.value == "" {
			continue
		}
		if err := discovery.CheckAddr(a.value); err != nil {
			return cli.Usagef("%s %s %v", a.flag, brief(a.value), err)
		}
	}
	if err := o.checkListen("--listen", &o.listen, o.insecureListen, o.advertise); err != nil {
		return err
	}
	if o.peerListen != "" {
		// nodes authenticate each other
		if err := o.checkListen("--peer-listen", &o.peerListen, true, o.peerAdvertise); err != nil {
			return err
		}
	}
	if o.adminListen == "" || o.adminListen == noAdmin {
		o.adminListen = noAdmin
		return nil
	}
	name, _, _ := net.SplitHostPort(o.adminListen)
	// this address is not announced
	if err := o.checkListen("--admin-listen", &o.adminListen, o.insecureListen, o.adminListen); err != nil {
		return err
	}
	if tcp, err := net.ResolveTCPAddr("tcp", o.adminListen); err == nil && (tcp.IP.IsLoopback() || len(o.adminHosts) > 0) {
		// requests may name the address in the flag
		o.adminHosts = append(o.adminHosts, name)
	}
	return nil
}

// explainAddr explains why an address could not be resolved.
func explainAddr(addr string, err error) string {
	host, port, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return "is not host:port, as 127.0.0.1:7400 is"
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && host != "" {
		return fmt.Sprintf("names the host %q, which is not known: give an IP address of this machine", host)
	}
	return fmt.Sprintf("has the port %q: want a number from 0 to 65535", port)
}

// checkListen resolves an address to listen on. advertised is the address that is announced
// instead, if any.
func (o *options) checkListen(flag string, addr *string, insecure bool, advertised string) error {
	tcp, err := net.ResolveTCPAddr("tcp", *addr)
	switch {
	case err != nil:
		return cli.Usagef("%s %q %s", flag, *addr, explainAddr(*addr, err))
	case !tcp.IP.IsLoopback() && !insecure:
		return cli.Usagef("%s %s can be reached from other machines and nobody has to authenticate: "+
			"listen on 127.0.0.1 or [::1], or add --insecure-listen", flag, *addr)
	case o.clustered() && advertised == "" && (len(tcp.IP) == 0 || tcp.IP.IsUnspecified()):
		return cli.Usagef("%s %s does not say where the others find this node: add --%sadvertise HOST:PORT", flag, *addr,
			strings.TrimSuffix(strings.TrimPrefix(flag, "--"), "listen"))
	}
	*addr = tcp.String()
	return nil
}
