package certs

import (
	"crypto/x509"
	"fmt"
	"time"
)

// soon is how long before its end a certificate is mentioned, if it lives long enough.
const soon = 30 * 24 * time.Hour

// ending says that a certificate ends soon, has ended, or has not begun. It returns "" for one that
// needs no attention.
func ending(cert *x509.Certificate, now time.Time) string {
	left := cert.NotAfter.Sub(now)
	switch {
	case now.Before(cert.NotBefore):
		return "it is not valid before " + cert.NotBefore.UTC().Format(time.RFC3339)
	case left < 0:
		return "it has expired: it was valid until " + cert.NotAfter.UTC().Format(time.RFC3339)
	case left < min(soon, cert.NotAfter.Sub(cert.NotBefore)/4):
		return fmt.Sprintf("it ends in %v, at %s", left.Round(time.Minute), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return ""
}

// Ending describes each certificate of the files that has expired, is not valid yet, or ends soon.
func (s *Store) Ending(now time.Time) (lines []string) {
	st := s.now.Load()
	if st.pair != nil {
		if what := ending(st.pair.Leaf, now); what != "" {
			lines = append(lines, fmt.Sprintf("the certificate in %s: %s", s.cfg.Cert, what))
		}
	}
	for _, ca := range st.roots {
		if what := ending(ca, now); what != "" {
			lines = append(lines, fmt.Sprintf("the CA %s in %s: %s", name(ca), s.cfg.CA, what))
		}
	}
	return lines
}

// remind logs what Ending describes, once a day.
func (s *Store) remind(now time.Time) {
	lines := s.Ending(now)
	if len(lines) == 0 {
		return
	}
	s.mu.Lock()
	due := now.Sub(s.reminded) >= remindEvery
	if due {
		s.reminded = now
	}
	s.mu.Unlock()
	if due {
		for _, line := range lines {
			s.cfg.Logger.Warn("a certificate has to be renewed", "certificate", line)
		}
	}
}

// name is how people know a certificate.
func name(cert *x509.Certificate) string {
	if subject := cert.Subject.String(); subject != "" {
		return fmt.Sprintf("%q", subject)
	}
	return fmt.Sprintf("with the serial number %v", cert.SerialNumber)
}

// changes describes a new state for the log.
func changes(before, after *state) (attrs []any) {
	if after.pair != nil && (before.pair == nil || !before.pair.Leaf.Equal(after.pair.Leaf)) {
		leaf := after.pair.Leaf
		attrs = append(attrs, "certificate", leaf.Subject.String(), "until", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if after.authorities != nil && !after.authorities.Equal(before.authorities) {
		attrs = append(attrs, "CAs", len(after.roots))
	}
	return attrs
}
