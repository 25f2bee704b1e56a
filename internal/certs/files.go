package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Files are the paths of PEM files.
type Files struct {
	// Cert is the certificate that this side shows, followed by those of intermediate CAs. Key is
	// its private key. Both or none. A server needs them.
	Cert, Key string
	// CA holds the certificates of the CAs that may sign what the other side shows. Empty: a server
	// asks for no certificate, and a client trusts the CAs of the system.
	CA string
}

// text is what the files of a Files hold.
type text struct{ cert, key, ca []byte }

// read reads all files.
func (f Files) read() (t text, err error) {
	for _, from := range []struct {
		what, path string
		to         *[]byte
	}{{"certificate", f.Cert, &t.cert}, {"key", f.Key, &t.key}, {"CA", f.CA, &t.ca}} {
		if from.path == "" {
			continue
		}
		if *from.to, err = os.ReadFile(from.path); err != nil {
			return text{}, fmt.Errorf("the %s cannot be read: %w", from.what, err)
		}
	}
	return t, nil
}

// sum identifies the text.
func (t text) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{t.cert, t.key, t.ca} {
		fmt.Fprintf(h, "%d ", len(part))
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// parse makes of the text what crypto/tls needs. Each result is nil if there is no such file.
func (f Files) parse(t text) (pair *tls.Certificate, authorities []*x509.Certificate, err error) {
	if f.Cert != "" {
		if pair, err = f.parsePair(t); err != nil {
			return nil, nil, err
		}
	}
	if f.CA != "" {
		if authorities, err = parseCertificates(t.ca); err != nil {
			return nil, nil, fmt.Errorf("the CA in %s: %w", f.CA, err)
		}
	}
	return pair, authorities, nil
}

func (f Files) parsePair(t text) (*tls.Certificate, error) {
	if _, err := parseCertificates(t.cert); err != nil {
		return nil, fmt.Errorf("the certificate in %s: %w", f.Cert, err)
	}
	if err := checkKey(t.key); err != nil {
		return nil, fmt.Errorf("the key in %s: %w", f.Key, err)
	}
	pair, err := tls.X509KeyPair(t.cert, t.key)
	switch {
	case err != nil && strings.Contains(err.Error(), "private key does not match public key"),
		err != nil && strings.Contains(err.Error(), "private key type does not match public key type"):
		return nil, fmt.Errorf("the key in %s does not belong to the (first) certificate in %s", f.Key, f.Cert)
	case err != nil:
		return nil, fmt.Errorf("the certificate in %s with the key in %s: %w", f.Cert, f.Key, err)
	}
	return &pair, nil
}

const certificateBlock = "CERTIFICATE"

// parseCertificates returns the certificates of a PEM text.
func parseCertificates(text []byte) (all []*x509.Certificate, err error) {
	others, rest := []string(nil), text
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != certificateBlock {
			others = append(others, block.Type)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the file is damaged: %w", len(all)+1, err)
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, lacking(text, "-----BEGIN "+certificateBlock+"-----", others)
	}
	// an unfinished block is what a writer has not written yet
	if begun := bytes.Count(text, []byte("-----BEGIN ")); begun > len(all)+len(others) {
		return nil, fmt.Errorf("%d of its %d PEM blocks are damaged or cut off", begun-len(all)-len(others), begun)
	}
	return all, nil
}

// checkKey explains why a key cannot be used, where crypto/tls would only say that it is none.
func checkKey(text []byte) error {
	var others []string
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return lacking(text, "-----BEGIN PRIVATE KEY-----", others)
		}
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return errors.New("it is encrypted, and nobody can be asked for the passphrase: " +
				"decrypt it (openssl pkey -in FILE -out FILE) and let only this program read it")
		case block.Type == "PRIVATE KEY", strings.HasSuffix(block.Type, " PRIVATE KEY"):
			return nil
		}
		others = append(others, block.Type)
	}
}

// lacking says that a text has no block of the wanted kind, and what it has instead.
func lacking(text []byte, want string, others []string) error {
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return errors.New("the file is empty")
	case len(others) > 0:
		return fmt.Errorf("the file has no %s, only %s", want, strings.Join(others, ", "))
	}
	return fmt.Errorf("the file is not PEM: it has no %s", want)
}
