package main

import (
	"crypto/tls"
	"errors"
	"log/slog"

	"github.com/spf13/pflag"

	"distmsg/internal/certs"
)

// tlsFlags are the flags that begin with --tls.
type tlsFlags struct {
	on         bool
	files      certs.Files
	serverName string
	skipVerify bool
}

func (t *tlsFlags) addTo(f *pflag.FlagSet) {
	f.BoolVar(&t.on, "tls", false, "use TLS; a server must prove that it is the host of its address")
	f.StringVar(&t.files.CA, "tls-ca", "", "PEM `file`: who signs the servers' certificates (default: those the system trusts)")
	f.StringVar(&t.files.Cert, "tls-cert", "", "PEM `file` with the certificate that all connections show")
	f.StringVar(&t.files.Key, "tls-key", "", "PEM `file` with its key")
	f.StringVar(&t.serverName, "tls-server-name", "", "`name` in the servers' certificates (default: the host of each address)")
	f.BoolVar(&t.skipVerify, "tls-insecure-skip-verify", false, "trust any server; for tests only, because anybody in between can read and change everything")
}

func (t *tlsFlags) check() error {
	named := t.files != certs.Files{} || t.serverName != "" || t.skipVerify
	switch {
	case named && !t.on:
		return errors.New("the flags that begin with --tls- need --tls")
	case (t.files.Cert == "") != (t.files.Key == ""):
		return errors.New("--tls-cert and --tls-key go together: give both, or neither")
	case t.skipVerify && (t.files.CA != "" || t.serverName != ""):
		return errors.New("--tls-insecure-skip-verify excludes --tls-ca and --tls-server-name: it checks neither")
	}
	return nil
}

// config reads the files. It returns nil without --tls.
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
