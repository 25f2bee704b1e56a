package proc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificates names PEM files: an authority, and a certificate for 127.0.0.1 and localhost that it
// has signed, valid for servers and clients.
type Certificates struct{ CA, Cert, Key string }

// WriteCertificates creates new certificates in dir, valid for a day.
func WriteCertificates(dir string) (Certificates, error) {
	files := Certificates{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
	}
	authority := template("distmsg test authority")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	authorityKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leaf := template("localhost")
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leafKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return files, err
	}
	authorityDER, err1 := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	leafDER, err2 := x509.CreateCertificate(rand.Reader, leaf, authority, leafKey.Public(), authorityKey)
	keyDER, err3 := x509.MarshalPKCS8PrivateKey(leafKey)
	return files, errors.Join(err1, err2, err3,
		writePEM(files.CA, "CERTIFICATE", authorityDER),
		writePEM(files.Cert, "CERTIFICATE", leafDER),
		writePEM(files.Key, "PRIVATE KEY", keyDER),
	)
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func writePEM(name, kind string, der []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
