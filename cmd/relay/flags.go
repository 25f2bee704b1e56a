package main

import (
	"runtime"
	"time"

	"github.com/spf13/pflag"

	"distmsg/discovery"
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
