package admin

import (
	"context"
	"errors"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Access says who may use the API. The zero value lets in whoever reaches a loopback address, and
// nobody else. With any of the fields, everybody has to show what they name.
type Access struct {
	// Token returns who has a bearer token, or an error that may be shown. Nil: tokens are not
	// accepted.
	Token func(ctx context.Context, token string) (Caller, error)
	// ClientCerts accepts client certificates that the server's TLS has verified.
	ClientCerts bool
	// CertOrders reports whether a certificate with this common name may give orders, and not only
	// ask. Nil: each may.
	CertOrders func(commonName string) bool
}

// Caller is who asks.
type Caller struct {
	Name string
	// MayOrder is the right to give orders. Everybody may ask.
	MayOrder bool
}

// Needed reports whether everybody has to show something.
func (a Access) Needed() bool { return a.Token != nil || a.ClientCerts }

// Enable is how to open the API where it is closed.
const Enable = "add --admin-token-file, or --admin-tls-cert, --admin-tls-key and --admin-tls-client-ca, or listen on 127.0.0.1 or [::1]"

// closed reports whether nobody may use the API of a server that listens there.
func (a Access) closed(listens net.Addr) bool { return !a.Needed() && !isLoopback(listens) }

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// local is the name of whoever needs no credentials.
const local = "(this machine)"

// who returns who asks, or why they may not.
func (a Access) who(r *http.Request) (who Caller, err error) {
	if !a.Needed() {
		return Caller{local, true}, nil
	}
	if a.ClientCerts && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		subject := r.TLS.PeerCertificates[0].Subject
		return Caller{subject.String(), a.CertOrders == nil || a.CertOrders(subject.CommonName)}, nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if a.Token == nil || !strings.EqualFold(scheme, "Bearer") {
		return who, refuse(http.StatusUnauthorized, a.wanted(), "this needs credentials")
	}
	if who, err = a.Token(r.Context(), strings.TrimSpace(token)); err != nil {
		return Caller{}, refuse(http.StatusUnauthorized, a.wanted(), "%v", err)
	}
	return who, nil
}

// checkRight refuses an order of somebody who may only ask.
func (c Caller) checkRight(r *http.Request) error {
	if c.MayOrder {
		return nil
	}
	return refuse(http.StatusForbidden, "use credentials with that right: a token made without --no-orders, or a certificate that --admin-tls-orders-from names",
		"%s is an order, and %s lacks the right orders: it may only ask", r.URL.Path, c.Name)
}

// wanted says what to show.
func (a Access) wanted() string {
	switch {
	case a.Token == nil:
		return "show a client certificate that --admin-tls-client-ca has signed"
	case a.ClientCerts:
		return "send Authorization: Bearer with a token of --admin-token-file, or show a client certificate that --admin-tls-client-ca has signed"
	}
	return "send Authorization: Bearer with a token of --admin-token-file"
}

// A browser sends requests for any page that it shows. It says where a request comes from, in
// Sec-Fetch-Site or in Origin. Other programs send neither.

// checkOrigin refuses requests of pages that do not come from this server.
func checkOrigin(r *http.Request) error {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return foreignPage("another site")
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if u, err := url.Parse(origin); err != nil || u.Scheme != scheme || !strings.EqualFold(u.Host, r.Host) {
		return foreignPage(origin)
	}
	return nil
}

func foreignPage(from string) error {
	return refuse(http.StatusForbidden, "ask from a program, or from this server's own page", "a page of %s must not use this API", from)
}

// ofHere refuses requests of foreign pages for parts of our page. A link to the page may stand
// anywhere.
func ofHere(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Fetch-Mode") != "navigate" {
			if err := checkOrigin(r); err != nil {
				writeError(w, r, err)
				return
			}
		}
		page.ServeHTTP(w, r)
	})
}

// checkChange refuses requests that a plain form of a page could send.
func checkChange(r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != jsonType {
		return refuse(http.StatusUnsupportedMediaType, "send JSON, with Content-Type: "+jsonType, "Content-Type is %q", r.Header.Get("Content-Type"))
	}
	return nil
}

// tooLarge turns the error of a body that is too large into a refusal.
func tooLarge(err error) error {
	if most := (*http.MaxBytesError)(nil); errors.As(err, &most) {
		return refuse(http.StatusRequestEntityTooLarge, "send less", "the body has more than %d bytes", most.Limit)
	}
	return err
}
