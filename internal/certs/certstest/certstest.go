// Package certstest makes certificates for tests: authorities, and the certificates that they sign.
// All functions may be called on any goroutine that may call t.Fatal.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA is a certificate authority.
type CA struct {
	Cert *x509.Certificate
	PEM  []byte // its certificate
	key  *ecdsa.PrivateKey
}

// A Pair is a certificate with its key.
type Pair struct {
	Leaf              *x509.Certificate
	CertPEM, KeyPEM   []byte
	TLS               tls.Certificate
	CertFile, KeyFile string // set by Write
}

// A Request says what a certificate shall hold. The zero value is a certificate for localhost,
// 127.0.0.1 and ::1 that servers and clients can use, and that ends in a day.
type Request struct {
	CommonName string   // default: test
	Names      []string // host names and IP addresses; nil: localhost, 127.0.0.1, ::1
	URIs       []string // such as spiffe://…
	Emails     []string
	NotBefore  time.Time          // default: an hour ago
	NotAfter   time.Time          // default: in a day
	Usages     []x509.ExtKeyUsage // default: server and client
}

// NewCA makes an authority with this common name.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, text := sign(t, template, template, key, key)
	return &CA{Cert: cert, PEM: text, key: key}
}

// Pool returns a pool with the CA's certificate only.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// Write writes the CA's certificate to ca.pem in dir and returns the path.
func (ca *CA) Write(t testing.TB, dir string) string {
	t.Helper()
	return write(t, dir, "ca.pem", ca.PEM)
}

// Issue makes a certificate that the CA has signed, with a key of its own.
func (ca *CA) Issue(t testing.TB, r Request) *Pair {
	t.Helper()
	if r.CommonName == "" {
		r.CommonName = "test"
	}
	if r.Names == nil {
		r.Names = []string{"localhost", "127.0.0.1", "::1"}
	}
	if r.NotBefore.IsZero() {
		r.NotBefore = time.Now().Add(-time.Hour)
	}
	if r.NotAfter.IsZero() {
		r.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if r.Usages == nil {
		r.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: r.CommonName}, EmailAddresses: r.Emails,
		NotBefore: r.NotBefore, NotAfter: r.NotAfter, ExtKeyUsage: r.Usages, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, name := range r.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	for _, text := range r.URIs {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	key := newKey(t)
	p := &Pair{}
	p.Leaf, p.CertPEM = sign(t, template, ca.Cert, key, ca.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	p.TLS = tls.Certificate{Certificate: [][]byte{p.Leaf.Raw}, PrivateKey: key, Leaf: p.Leaf}
	return p
}

// Write writes the pair to NAME.pem and NAME.key in dir and returns it.
func (p *Pair) Write(t testing.TB, dir, name string) *Pair {
	t.Helper()
	p.CertFile, p.KeyFile = write(t, dir, name+".pem", p.CertPEM), write(t, dir, name+".key", p.KeyPEM)
	return p
}

// write replaces a file as a whole, so that nobody reads half of it.
func write(t testing.TB, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func sign(t testing.TB, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
