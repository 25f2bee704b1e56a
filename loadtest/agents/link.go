package agents

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"distmsg/loadtest/result"
)

// A link is the coordinator's way to one agent.
type link struct {
	addr, url, token string
	http             *http.Client
	clock            clock
	patience         time.Duration // an agent that says nothing for so long has died
	program          string        // of the agent
	first            reading       // when the run began
	last             *reading      // at its end; nil: the agent did not answer any more
}

// A reading is what a coordinator knows about an agent's clock.
type reading struct {
	offset time.Duration // the agent's clock minus ours
	bound  time.Duration // the offset is right up to this
}

// newLink makes a link. secure is for TLS; nil: without.
func newLink(addr, token string, secure *tls.Config, c clock) *link {
	dialer := net.Dialer{Timeout: dialWithin}
	scheme := "http://"
	if secure != nil {
		scheme = "https://"
	}
	return &link{addr: addr, url: scheme + addr, token: token, clock: c, patience: answerWithin, http: &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: secure, TLSHandshakeTimeout: answerWithin, ResponseHeaderTimeout: answerWithin}}}
}

// roundTrips is how often a coordinator asks for the clock. The fastest answer counts.
const roundTrips = 16

// meet finds out whether an agent of this version is there, and what its clock says.
func (l *link) meet(ctx context.Context) (err error) {
	l.first, err = l.read(ctx)
	return err
}

// part reads the clock again at the end of a run. Without an answer, the drift is not known.
func (l *link) part(ctx context.Context) {
	if r, err := l.read(ctx); err == nil {
		l.last = &r
	}
}

// drift returns by how much the offset has grown, and up to what this is right. It returns nil if
// it is not known.
func (l *link) drift() (drift *result.Seconds, bound result.Seconds) {
	if l.last == nil {
		return nil, 0
	}
	return new(result.Of(l.last.offset - l.first.offset)), result.Of(l.last.bound + l.first.bound)
}

// read reads the agent's clock.
func (l *link) read(ctx context.Context) (best reading, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerWithin, fmt.Errorf("no answer within %v", answerWithin))
	defer cancel()
	for n := range roundTrips {
		asked := l.clock.now()
		h, err := l.hello(ctx)
		bound := l.clock.now().Sub(asked) / 2
		if err != nil {
			return best, err
		}
		if n == 0 || bound < best.bound {
			best = reading{time.Unix(0, h.Clock).Sub(asked.Add(bound)), bound}
		}
	}
	return best, nil
}

// hello asks the agent what it is. An agent of another version is an error.
func (l *link) hello(ctx context.Context) (h hello, err error) {
	text, err := l.get(ctx)
	if err != nil {
		return h, l.explain(ctx, err)
	}
	if err := json.Unmarshal(text, &h); err != nil || h.Version == 0 {
		return h, fmt.Errorf("%s is not the address of an agent: it answers %.60q", l.addr, text)
	}
	if h.Version != version || h.Schema != result.Schema {
		return h, fmt.Errorf("agent %s is %s and speaks version %d of the agents' protocol, with reports of %s. This program wants version %d and %s: run the same release everywhere",
			l.addr, h.Program, h.Version, h.Schema, version, result.Schema)
	}
	l.program = h.Program
	return h, nil
}

func (l *link) get(ctx context.Context) ([]byte, error) {
	answer, err := l.request(ctx, http.MethodGet, pathHello, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(io.LimitReader(answer.Body, maxJob))
}

// order sends an order about the run.
func (l *link) order(ctx context.Context, path string, o order) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerWithin, fmt.Errorf("no answer within %v", answerWithin))
	defer cancel()
	answer, err := l.request(ctx, http.MethodPost, path, o)
	if err != nil {
		return l.explain(ctx, err)
	}
	return answer.Body.Close()
}

// follow sends a job and calls tell for each event of the run. It returns after the last one. An
// agent that says nothing for a while counts as dead. The time in tell does not.
func (l *link) follow(ctx context.Context, j *job, tell func(*event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(l.patience, func() { cancel(fmt.Errorf("nothing came for %v", l.patience)) })
	defer silence.Stop()
	answer, err := l.request(ctx, http.MethodPost, pathRun, j)
	if err != nil {
		return l.explain(ctx, err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		silence.Stop()
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("agent %s: an event that is no JSON: %w", l.addr, err)
		}
		tell(&e)
		if e.Report != nil || e.Failed != "" {
			return nil
		}
		silence.Reset(l.patience)
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return l.explain(ctx, err)
}

// request sends v as JSON. An answer that is not 200 is an error.
func (l *link) request(ctx context.Context, method, path string, v any) (*http.Response, error) {
	var body bytes.Buffer
	if v != nil {
		if err := json.NewEncoder(&body).Encode(v); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, l.url+path, &body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if l.token != "" {
		r.Header.Set("Authorization", bearer(l.token))
	}
	answer, err := l.http.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	return nil, &refusal{answer.StatusCode, strings.TrimSpace(string(text))}
}

// A refusal is an answer that is not 200.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// explain names the agent, and says what became of it.
func (l *link) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	op, no, untrusted := (*net.OpError)(nil), (*refusal)(nil), (*tls.CertificateVerificationError)(nil)
	header := tls.RecordHeaderError{}
	switch {
	case errors.As(err, &no) && no.status == http.StatusNotFound:
		return fmt.Errorf("%s is not the address of an agent: it answers %.60q", l.addr, no.text)
	case errors.As(err, &no) && strings.Contains(no.text, "HTTP request to an HTTPS server"):
		return fmt.Errorf("agent %s uses TLS: add --agent-tls", l.addr)
	case errors.As(err, &no):
		return fmt.Errorf("agent %s refuses: %s", l.addr, no.text)
	case errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &header):
		return fmt.Errorf("agent %s does not use TLS: leave out --agent-tls, or give the agent --agent-tls-cert and --agent-tls-key", l.addr)
	case errors.As(err, &untrusted):
		return fmt.Errorf("agent %s is not trusted: --agent-tls-ca says who signs its certificate, --agent-tls-server-name what it is called (%w)", l.addr, err)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("agent %s refuses the TLS handshake: it may want a certificate that it knows, see --agent-tls-cert (%w)", l.addr, err)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("agent %s cannot be reached: does loadtest agent run there? (%w)", l.addr, op.Err)
	case strings.Contains(err.Error(), "malformed HTTP"): // package http has no type for it
		return fmt.Errorf("%s is not the address of an agent: it does not speak HTTP (%w)", l.addr, err)
	}
	return fmt.Errorf("agent %s has died or does not answer: %w", l.addr, err)
}

func (l *link) close() { l.http.CloseIdleConnections() }
