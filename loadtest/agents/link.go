package agents

import (
	"bufio"
	"bytes"
	"context"
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
	addr, token string
	http        *http.Client
	clock       clock
	patience    time.Duration // an agent that says nothing for so long has died
	program     string        // of the agent
	offset      time.Duration // the agent's clock minus ours
	bound       time.Duration // the offset is right up to this
}

func newLink(addr, token string, c clock) *link {
	dialer := net.Dialer{Timeout: dialWithin}
	return &link{addr: addr, token: token, clock: c, patience: answerWithin, http: &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, ResponseHeaderTimeout: answerWithin}}}
}

// roundTrips is how often a coordinator asks for the clock. The fastest answer counts.
const roundTrips = 16

// meet finds out whether an agent of this version is there, and what its clock says.
func (l *link) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerWithin, fmt.Errorf("no answer within %v", answerWithin))
	defer cancel()
	for n := range roundTrips {
		asked := l.clock.now()
		text, err := l.get(ctx)
		bound := l.clock.now().Sub(asked) / 2
		if err != nil {
			return l.explain(ctx, err)
		}
		var h hello
		if err := json.Unmarshal(text, &h); err != nil || h.Version == 0 {
			return fmt.Errorf("%s is not the address of an agent: it answers %.60q", l.addr, text)
		}
		if h.Version != version || h.Schema != result.Schema {
			return fmt.Errorf("agent %s is %s and speaks version %d of the agents' protocol, with reports of %s. This program wants version %d and %s: run the same release everywhere",
				l.addr, h.Program, h.Version, h.Schema, version, result.Schema)
		}
		l.program = h.Program
		if n == 0 || bound < l.bound {
			l.bound, l.offset = bound, time.Unix(0, h.Clock).Sub(asked.Add(bound))
		}
	}
	return nil
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
	r, err := http.NewRequestWithContext(ctx, method, "http://"+l.addr+path, &body)
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
	op, no := (*net.OpError)(nil), (*refusal)(nil)
	switch {
	case errors.As(err, &no) && no.status == http.StatusNotFound:
		return fmt.Errorf("%s is not the address of an agent: it answers %.60q", l.addr, no.text)
	case errors.As(err, &no):
		return fmt.Errorf("agent %s refuses: %s", l.addr, no.text)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("agent %s cannot be reached: does loadtest agent run there? (%w)", l.addr, op.Err)
	}
	return fmt.Errorf("agent %s has died or does not answer: %w", l.addr, err)
}

func (l *link) close() { l.http.CloseIdleConnections() }
