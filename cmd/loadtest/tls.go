package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"

	"distmsg/internal/certs"
)

// tlsFlags are the flags that say how to reach servers with TLS.
type tlsFlags struct {
	side       string // what the names begin with: nothing, or "agent-"
	on         bool
	files      certs.Files
	serverName string
	skipVerify bool
}

func (t *tlsFlags) addTo(f *pflag.FlagSet) {
	who := map[string]string{"": "servers", "agent-": "agents"}[t.side]
	f.BoolVar(&t.on, t.side+"tls", false, "use TLS to the "+who+"; each must prove that it is the host of its address")
	f.StringVar(&t.files.CA, t.side+"tls-ca", "", "PEM `file`: who signs the "+who+"' certificates (default: those the system trusts)")
	f.StringVar(&t.files.Cert, t.side+"tls-cert", "", "PEM `file` with the certificate that all connections to the "+who+" show")
	f.StringVar(&t.files.Key, t.side+"tls-key", "", "PEM `file` with its key")
	f.StringVar(&t.serverName, t.side+"tls-server-name", "", "`name` in the "+who+"' certificates (default: the host of each address)")
	f.BoolVar(&t.skipVerify, t.side+"tls-insecure-skip-verify", false, "trust any of the "+who+"; for tests only, because anybody in between can read and change everything")
}

func (t *tlsFlags) check() error {
	named := t.files != certs.Files{} || t.serverName != "" || t.skipVerify
	switch {
	case named && !t.on:
		return fmt.Errorf("the flags that begin with --%[1]stls- need --%[1]stls", t.side)
	case (t.files.Cert == "") != (t.files.Key == ""):
		return fmt.Errorf("--%[1]stls-cert and --%[1]stls-key go together: give both, or neither", t.side)
	case t.skipVerify && (t.files.CA != "" || t.serverName != ""):
		return fmt.Errorf("--%[1]stls-insecure-skip-verify excludes --%[1]stls-ca and --%[1]stls-server-name: it checks neither", t.side)
	}
	return nil
}

// config reads the files. It returns nil if TLS is not asked for.
func (t *tlsFlags) config() (*tls.Config, error) {
	if !t.on {
		return nil, nil
	}
	store, err := certs.Open(certs.Config{Files: t.files, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	config := store.Client(t.serverName)
	// each connection costs a whole handshake, as it would from clients of their own
	config.ClientSessionCache = nil
	config.InsecureSkipVerify = t.skipVerify
	return config, nil
}
