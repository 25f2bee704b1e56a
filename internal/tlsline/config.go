package tlsline

import (
	"crypto/tls"
	"errors"
)

// Prepare returns a copy of a configuration with what both sides need: no version before 1.2, no
// renegotiation, and records as large as they may be. It returns nil for nil.
func Prepare(given *tls.Config) *tls.Config {
	if given == nil {
		return nil
	}
	c := given.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	c.Renegotiation = tls.RenegotiateNever
	c.DynamicRecordSizingDisabled = true
	if choose := given.GetConfigForClient; choose != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			return Prepare(chosen), err
		}
	}
	return c
}

// Check returns what is wrong with the configuration of a server.
func Check(c *tls.Config) error {
	switch {
	case len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil:
		return errors.New("has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	case c.MaxVersion != 0 && c.MaxVersion < tls.VersionTLS12:
		return errors.New("allows no version from TLS 1.2 on: set a greater MaxVersion, or none")
	}
	return nil
}
