package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// service is an HTTP server that we ask, and do not trust to answer soon, shortly, or at all.
type service struct {
	url     string
	timeout time.Duration
	most    int64 // bytes of an answer
	client  *http.Client
}

// newService checks the URL, and reads the file of authorities (empty: those of the system).
func newService(rawURL, caFile string, timeout time.Duration, most int64) (*service, error) {
	if err := checkURL(rawURL); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.MaxIdleConnsPerHost = maxCalls
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM format", caFile)
		}
	}
	return &service{url: rawURL, timeout: timeout, most: most, client: &http.Client{
		Transport: transport,
		// A redirect would send what is secret to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// checkURL refuses URLs over which others could read or change what is said.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it is no URL that begins with https://")
	case u.User != nil:
		return errors.New("it contains a user or a password, which process listings would show")
	case u.Scheme == "http" && !onLoopback(u.Hostname()):
		return errors.New("it begins with http://, and others could read and change what is said: want https://, except for this machine")
	}
	return nil
}

func onLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// ask sends a request and returns the status and the body. Errors have no text from outside.
func (s *service) ask(ctx context.Context, r *http.Request) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Do(r.WithContext(ctx))
	if err != nil {
		return 0, nil, s.explain(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, s.most+1))
	switch {
	case err != nil:
		return 0, nil, s.explain(err)
	case int64(len(body)) > s.most:
		return 0, nil, fmt.Errorf("the answer has more than %d bytes", s.most)
	}
	return resp.StatusCode, body, nil
}

// explain leaves the URL out, whose query may be secret.
func (s *service) explain(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		if wrapped.Timeout() {
			return fmt.Errorf("no answer within %v", s.timeout)
		}
		return wrapped.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no complete answer within %v", s.timeout)
	}
	return err
}
