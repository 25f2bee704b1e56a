package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"distmsg/engine"
	"distmsg/internal/certs"
	"distmsg/internal/cli"
)

// tlsOptions are the flags about TLS.
type tlsOptions struct {
	clients           certs.Files
	requireClientCert bool
	peers             certs.Files
	admin             certs.Files
	adminOrders       []string // whose certificates may give orders
	minVersion        string
}

func (o *tlsOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.clients.Cert, "tls-cert", "", "PEM `file` with the node's certificate for clients, which must then use TLS. The node reads this file and those\n"+
		"below again when they change, and on SIGHUP")
	f.StringVar(&o.clients.Key, "tls-key", "", "PEM `file` with the key of that certificate")
	f.StringVar(&o.clients.CA, "tls-client-ca", "", "PEM `file` with the authorities that sign the clients' certificates; the node refuses clients without one")
	f.BoolVar(&o.requireClientCert, "tls-require-client-cert", true, "with --tls-client-ca, refuse clients that show no certificate; if false, the node verifies only the certificates that it is shown")
	f.StringVar(&o.peers.Cert, "peer-tls-cert", "", "PEM `file` with the node's certificate for links to other nodes, which then use mutual TLS")
	f.StringVar(&o.peers.Key, "peer-tls-key", "", "PEM `file` with the key of that certificate")
	f.StringVar(&o.peers.CA, "peer-tls-ca", "", "PEM `file` with the authorities that sign the certificates of all nodes")
	f.StringVar(&o.admin.Cert, "admin-tls-cert", "", "PEM `file` with the certificate of the admin port, which then speaks HTTPS")
	f.StringVar(&o.admin.Key, "admin-tls-key", "", "PEM `file` with the key of that certificate")
	f.StringVar(&o.admin.CA, "admin-tls-client-ca", "", "PEM `file` with the authorities that sign operators' certificates: the admin API then asks for one, or for a token of\n"+
		"--admin-token-file. The probes and /metrics ask for nothing")
	f.StringSliceVar(&o.adminOrders, "admin-tls-orders-from", nil, "`patterns` of the common names of operators' certificates that may give orders: a name, or its beginning\n"+
		"followed by *. The others may only ask (default: each may give orders)")
	f.StringVar(&o.minVersion, "tls-min-version", "1.2", "lowest `version` of TLS that the node accepts: 1.2 or 1.3")
}

// tlsVersion returns the version that --tls-min-version names, and whether there is one.
func tlsVersion(text string) (version uint16, known bool) {
	switch text {
	case "1.2":
		return tls.VersionTLS12, true
	case "1.3":
		return tls.VersionTLS13, true
	}
	return 0, false
}

// check rejects flags that do not belong together. It reads no file.
func (o *tlsOptions) check(clustered bool) error {
	if _, known := tlsVersion(o.minVersion); !known {
		return cli.Usagef("--tls-min-version %q is not 1.2 or 1.3", o.minVersion)
	}
	plain := o.clients.Cert == ""
	switch {
	case plain != (o.clients.Key == ""):
		return cli.Usagef("--tls-cert and --tls-key go together: give both, or neither")
	case plain && o.clients.CA != "":
		return cli.Usagef("--tls-client-ca needs --tls-cert and --tls-key: clients show certificates only to a node that has one")
	case o.clients.CA == "" && !o.requireClientCert:
		return cli.Usagef("--tls-require-client-cert=false needs --tls-client-ca: without it, no client is asked for a certificate")
	}
	switch {
	case (o.admin.Cert == "") != (o.admin.Key == ""):
		return cli.Usagef("--admin-tls-cert and --admin-tls-key go together: give both, or neither")
	case o.admin.Cert == "" && o.admin.CA != "":
		return cli.Usagef("--admin-tls-client-ca needs --admin-tls-cert and --admin-tls-key: operators show certificates only to a port that has one")
	case o.admin.CA == "" && len(o.adminOrders) > 0:
		return cli.Usagef("--admin-tls-orders-from needs --admin-tls-client-ca: without it, operators show no certificates")
	}
	some, all := o.peers != certs.Files{}, o.peers.Cert != "" && o.peers.Key != "" && o.peers.CA != ""
	switch {
	case some && !clustered:
		return cli.Usagef("--peer-tls-cert, --peer-tls-key and --peer-tls-ca work only in a cluster: add --discovery or --peers")
	case some && !all:
		return cli.Usagef("--peer-tls-cert, --peer-tls-key and --peer-tls-ca go together: " +
			"on a link, each node shows its certificate and verifies the other's")
	}
	return nil
}

// provesClients reports whether each client has to prove who it is before it can say anything.
func (o *tlsOptions) provesClients() bool { return o.clients.CA != "" && o.requireClientCert }

// tlsFiles are the files about TLS, as they are now.
type tlsFiles struct {
	clients, peers, admin *certs.Store // nil: no TLS there
}

// open reads the files that the flags name.
func (o *tlsOptions) open(logger *slog.Logger) (f tlsFiles, err error) {
	version, _ := tlsVersion(o.minVersion) // checked
	for _, side := range []struct {
		name, flags string
		files       certs.Files
		to          **certs.Store
	}{{"clients", "--tls-cert", o.clients, &f.clients}, {"peers", "--peer-tls-cert", o.peers, &f.peers},
		{"admin", "--admin-tls-cert", o.admin, &f.admin}} {
		if side.files.Cert == "" {
			continue
		}
		*side.to, err = certs.Open(certs.Config{
			Files: side.files, MinVersion: version, ClientCertOptional: side.name == "admin" || side.name == "clients" && !o.requireClientCert,
			Name: side.name, Logger: logger,
		})
		if err != nil {
			return f, cli.Usagef("%s and the flags that go with it: %w", side.flags, err)
		}
	}
	return f, nil
}

// each calls do for each side that uses TLS.
func (f *tlsFiles) each(do func(name string, s *certs.Store)) {
	if f.clients != nil {
		do("clients", f.clients)
	}
	if f.peers != nil {
		do("peers", f.peers)
	}
	if f.admin != nil {
		do("admin", f.admin)
	}
}

// apply makes a node use the files.
func (f *tlsFiles) apply(cfg *engine.Config) {
	if f.clients != nil {
		cfg.TLS = f.clients.Server()
	}
	if f.peers != nil {
		cfg.PeerTLS, cfg.PeerTLSClient = f.peers.Server(), f.peers.Client
	}
}

// warnNames warns if clients or nodes will refuse a certificate, because the node announces an
// address with another host.
func (f *tlsFiles) warnNames(o *options, logger *slog.Logger) {
	f.each(func(name string, s *certs.Store) {
		addr := o.advertise
		switch {
		case name == "peers" && o.byDNS(): // nodes check the names in DNS
			return
		case name == "admin":
			return // this address is not announced
		case name == "peers":
			addr = cmp.Or(o.peerAdvertise, o.peerListen)
		case addr == "" && o.clustered():
			addr = o.listen
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil || host == "" { // nothing is announced, or the engine's default
			return
		}
		if err := s.CheckName(host); err != nil {
			logger.Warn("whoever connects to the address that this node announces will refuse its certificate", "for", name, "announced", addr, "error", err)
		}
	})
}

// run looks for changes of the files until ctx ends.
func (f *tlsFiles) run(ctx context.Context) {
	var sides sync.WaitGroup
	f.each(func(_ string, s *certs.Store) { sides.Go(func() { s.Run(ctx) }) })
	sides.Wait()
}

// addParts lets SIGHUP read the files at once.
func (f *tlsFiles) addParts(reloads *reloader) {
	f.each(func(name string, s *certs.Store) {
		reloads.add(part{
			what:    fmt.Sprintf("the TLS files for %s", name),
			prepare: func(context.Context, *options) (func(), error) { return s.Prepare() },
		})
	})
}

// health says what an operator has to do about the files.
func (f *tlsFiles) health() (troubles []string) {
	f.each(func(name string, s *certs.Store) {
		if err := s.Err(); err != nil {
			troubles = append(troubles, fmt.Sprintf("the TLS files for %s have changed and cannot be used: %v", name, err))
		}
		for _, line := range s.Ending(time.Now()) {
			troubles = append(troubles, fmt.Sprintf("TLS for %s: %s", name, line))
		}
	})
	return troubles
}
