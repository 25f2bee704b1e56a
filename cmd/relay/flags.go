package main

import (
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"distmsg/discovery"
	"distmsg/discovery/dns"
	"distmsg/engine"
	"distmsg/internal/loglevel"
)

// options are the flags of relay serve.
type options struct {
	config                         string // the file that some of the others come from
	listen, adminListen, advertise string
	insecureListen                 bool
	adminHosts                     []string
	pprof                          bool
	otlpEndpoint                   string
	adminTokenFile                 string
	proxyFrom                      []string
	proxies                        []netip.Prefix // the parsed proxyFrom
	loops                          int
	maxSessionIDs, maxNodeIDs      int
	maxNodeWatched                 int
	limits                         limitOptions
	memoryBudget                   byteSize // 0: the engine's default
	nodeID                         string
	tls                            tlsOptions
	resumeWindow, verifyPeriod     time.Duration
	expiryGrace                    time.Duration

	auth authOptions

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
	f.StringVar(&o.config, "config", "", "`file` with values of these flags, as YAML (.yaml, .yml) or TOML (.toml): their names are the keys.\nThe flags and their environment variables (DISTMSG_LOG_LEVEL for --log-level) beat it")
	f.StringVar(&o.listen, "listen", "127.0.0.1:7400", "`address` for clients; port 0 picks a free one")
	f.StringVar(&o.advertise, "advertise", "", "`address` that the node announces to clients (default: --listen)")
	f.StringVar(&o.adminListen, "admin-listen", "127.0.0.1:7401", "`address` for HTTP: /healthz, /readyz, /metrics, and the API of relay nodes and the like; none turns it off")
	f.StringSliceVar(&o.adminHosts, "admin-host", nil, "host `names` that HTTP requests may use, besides localhost and IP addresses (default: any name, or none if\n--admin-listen is a loopback address, because a web page can make its own name resolve to that)")
	f.BoolVar(&o.pprof, "pprof", false, "serve the profiles of the Go runtime (net/http/pprof) at /debug/pprof/ on --admin-listen")
	f.StringVar(&o.otlpEndpoint, "otlp-endpoint", "", "`URL` of a collector of OpenTelemetry, as in http://127.0.0.1:4318: it gets the spans of messages\nwhose trace is sampled, by OTLP over HTTP (default: none)")
	f.StringVar(&o.adminTokenFile, "admin-token-file", "", "`file` with the hashes of operators' tokens; relay token add makes one. The admin API then asks for a token; without\n"+
		"it, and without --admin-tls-client-ca, the API is open on loopback addresses, and closed on others")
	f.BoolVar(&o.insecureListen, "insecure-listen", false, "allow addresses that other machines can reach, without authentication")
	o.tls.addFlags(f)
	f.StringSliceVar(&o.proxyFrom, "proxy-protocol-from", nil, "`networks` of load balancers, as in 10.0.0.0/8 or 10.0.0.5, that begin each connection with a header of\nthe PROXY protocol, version 2: the client's address is the one in it")
	f.IntVar(&o.loops, "loops", engine.UsableCPUs(), "run `n` event loops, by default one for each CPU that the process may use")
	f.IntVar(&o.maxSessionIDs, "max-session-ids", 1_000_000, "one session may bind `n` IDs at this node; further binds end overflow")
	f.IntVar(&o.maxNodeIDs, "max-node-ids", 10_000_000, "all sessions together may bind `n` IDs at this node; each takes about 250 bytes of memory")
	f.IntVar(&o.maxNodeWatched, "max-node-watched", 1_000_000, "all connections together may watch `n` IDs; each takes about 200 bytes of memory")
	o.limits.addFlags(f)
	f.Var(&o.memoryBudget, "memory-budget", "`size` of the memory that the node may use, such as 2GiB: the runtime's memory limit unless GOMEMLIMIT is set.\n"+
		"Connections may hold half of it (default: half of the memory of the machine or the cgroup)")
	f.StringVar(&o.nodeID, "node-id", "", "`name` of this node (default 16 random hex digits)")
	f.DurationVar(&o.resumeWindow, "resume-window", 10*time.Second, "how long a session outlives its last connection; the same on all nodes")
	f.DurationVar(&o.expiryGrace, "expiry-grace", 10*time.Second, "how long a client may stay connected after its credentials have expired or were revoked")
	f.DurationVar(&o.verifyPeriod, "verify-period", 5*time.Minute, "how long one comparison of all bindings and cached routes with the registry takes; the node repeats it all the time")

	o.auth.addFlags(f)

	f.StringVar(&o.cluster, "cluster", "distmsg", "`name` of the cluster: the node refuses nodes of other clusters, and keys in Redis begin with the name")
	f.StringVar(&o.discovery, "discovery", "", "`URL` of where the nodes find each other: ZooKeeper, zk://HOST:PORT,HOST:PORT/PATH; or DNS, dns://NAME:PORT for\n"+
		"A and AAAA records with the port for nodes, dns://NAME for SRV records, ?server=HOST:PORT&refresh=5s after it")
	f.StringVar(&o.discoveryAuthFile, "discovery-auth-file", "", "`file` with user:password for ZooKeeper (or in "+envDiscoveryAuth+")")
	f.StringVar(&o.peerList, "peers", "", "the other nodes, instead of --discovery: `ID=ADDRESS/PEER-ADDRESS,...`, with the addresses for clients and for nodes.\n"+
		"A node without a link for longer than the resume window counts as dead, because a list\ndoes not show whether the node is dead or cannot be reached")
	f.StringVar(&o.peerListen, "peer-listen", "", "`address` for other nodes, which must know the cluster's secret (default 127.0.0.1:7402)")
	f.StringVar(&o.peerAdvertise, "peer-advertise", "", "`address` that the node announces to other nodes (default: --peer-listen)")
	f.StringVar(&o.secretFile, "cluster-secret-file", "", "`file` with the secret that all nodes share, at least 16 bytes (or in "+envSecret+"). While it is replaced, the file has several: the node uses the first line, and accepts all")

	f.StringVar(&o.registry, "registry", memoryRegistry, "`URL` of the registry, which stores the bindings: memory, or for Redis (rediss for TLS) redis://HOST:PORT/DB,\n"+
		"redis-sentinel://HOST:PORT,HOST:PORT/MASTER or redis-cluster://HOST:PORT,HOST:PORT")
	f.StringVar(&o.registryUsername, "registry-username", "", "`user` of Redis (default: its default user)")
	f.StringVar(&o.registryPasswordFile, "registry-password-file", "", "`file` with the password for Redis (or in "+envRegistryPassword+")")
	f.StringVar(&o.sentinelPasswordFile, "registry-sentinel-password-file", "", "`file` with the password for the sentinels (or in "+envSentinelPassword+")")
	f.StringVar(&o.registryCA, "registry-ca-file", "", "PEM `file` with the authorities that sign Redis's certificate (default: those that the system trusts)")
	f.StringVar(&o.registryCert, "registry-cert-file", "", "PEM `file` with this node's certificate for Redis")
	f.StringVar(&o.registryKey, "registry-key-file", "", "PEM `file` with the key of that certificate")
	f.IntVar(&o.registryBuckets, "registry-buckets", 16384, "store the bindings in `n` hashes; one for 50 to 100 IDs is best.\n"+
		"The same on all nodes, and fixed as long as Redis holds the data")

	f.DurationVar(&o.drainTimeout, "drain-timeout", 10*time.Second, "how long draining may take at most")
	f.StringVar(&o.logLevel, "log-level", "info", "`levels`: debug, info, warn or error; and for components, as in info,links=debug: "+
		strings.Join(loglevel.Components(), ", "))
	f.StringVar(&o.logFormat, "log-format", "text", "`format`: text or json")
}

// byDNS reports whether the nodes find each other by DNS.
func (o *options) byDNS() bool { return strings.HasPrefix(o.discovery, dns.Scheme) }

// clustered reports whether this node is one of several.
func (o *options) clustered() bool { return o.discovery != "" || o.peerList != "" }
