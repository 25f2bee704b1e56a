package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
)

// tlsFlags are the flags that begin with --tls.
type tlsFlags struct {
	on                        bool
	ca, cert, key, serverName string
}

func (t *tlsFlags) addTo(flags *flag.FlagSet) {
	flags.BoolVar(&t.on, "tls", false, "connect to the relay nodes with TLS; each must prove that it is the host of its address")
	flags.StringVar(&t.ca, "tls-ca", "", "PEM `file`: who signs the nodes' certificates (default: those the system trusts)")
	flags.StringVar(&t.cert, "tls-cert", "", "PEM `file` with this gateway's certificate, if the nodes want one")
	flags.StringVar(&t.key, "tls-key", "", "PEM `file` with its key")
	flags.StringVar(&t.serverName, "tls-server-name", "", "`name` in the nodes' certificates (default: the host of each address)")
}

// config returns what the SDK needs, or nil without --tls.
func (t *tlsFlags) config() (*tls.Config, error) {
	switch named := t.ca != "" || t.cert != "" || t.key != "" || t.serverName != ""; {
	case !t.on && named:
		return nil, errors.New("the flags that begin with --tls- need --tls")
	case !t.on:
		return nil, nil
	case (t.cert == "") != (t.key == ""):
		return nil, errors.New("--tls-cert and --tls-key go together: give both, or neither")
	}
	config := &tls.Config{ServerName: t.serverName}
	if t.ca != "" {
		text, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--tls-ca: %s has no certificate in it", t.ca)
		}
	}
	if t.cert != "" {
		// Each handshake reads the files, so a renewed certificate needs no restart.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.cert, t.key)
			return &pair, err
		}
		if _, err := tls.LoadX509KeyPair(t.cert, t.key); err != nil {
			return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
	}
	return config, nil
}
