package drive

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/internal/tlsline"
)

// Reach asks the nodes whether they are there, and sets cfg.Nodes to those that answer. If cfg
// names nodes, each of them must answer. A node of the membership may have died a moment ago. The
// run continues without it: Reach says so on progress, and returns what is wrong with it in silent.
func (k *Kind) Reach(ctx context.Context, cfg *Config, progress io.Writer) (silent []string, err error) {
	known := addresses{membership: cfg.Membership}
	addrs := known.first()
	if len(addrs) == 0 {
		return nil, errNoNode
	}
	if k.ask == nil {
		cfg.Nodes = addrs
		return nil, nil
	}
	listed := len(cfg.Nodes) == 0
	found := make([]error, len(addrs))
	var asking sync.WaitGroup
	for i, addr := range addrs {
		asking.Go(func() { found[i] = k.ask(ctx, cfg, addr, !listed) })
	}
	asking.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var nodes []string
	for i, err := range found {
		switch {
		case err == nil:
			nodes = append(nodes, addrs[i])
		case !listed:
			return nil, explainUnreached(addrs[i], err)
		default:
			silent = append(silent, err.Error())
			fmt.Fprintf(progress, "continuing without a node that discovery lists: %v\n", err)
		}
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("discovery lists %d nodes and none of them answers: %s", len(addrs), strings.Join(silent, ", "))
	}
	cfg.Nodes = nodes
	return silent, nil
}

// askNode sends hello to addr and returns what is wrong there.
func askNode(ctx context.Context, cfg *Config, addr string, named bool) error {
	config := cfg.TLS
	credentials, err := ReadCredentials(cfg.CredentialsFile)
	if err != nil {
		return err
	}
	hello := codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version, Agent: []byte("distmsg-loadtest"), Credentials: credentials})
	answer, err := exchange(ctx, config, addr, hello, codec.AppendBye(nil))
	if err != nil {
		return err
	}
	// this may be a server that waits for a whole line of text, so send one that such servers
	// answer
	if len(answer) == 0 && named {
		if answer, err = exchange(ctx, config, addr, []byte("GET / HTTP/1.0\r\n\r\n"), nil); err != nil {
			return err
		}
	}
	return judge(addr, answer)
}

// explainUnreached explains what to check if the run cannot connect to a node that the
// configuration names.
func explainUnreached(addr string, err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("node %s cannot be reached: is a relay running there? (%w)", addr, op.Err)
	}
	return err
}

// exchange sends ask to addr, reads until it has the first frame or welcomeWithin is over, and then
// sends bye.
func exchange(ctx context.Context, config *tls.Config, addr string, ask, bye []byte) (answer []byte, err error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(welcomeWithin))
	if config != nil {
		secure := tls.Client(conn, configFor(config, addr))
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, explainTLS(addr, err)
		}
		conn = secure
		conn.SetDeadline(time.Now().Add(welcomeWithin))
	}
	if _, err := conn.Write(ask); err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	chunk := make([]byte, codec.MaxHelloFrame)
	for {
		n, err := conn.Read(chunk)
		answer = append(answer, chunk[:n]...)
		// with TLS 1.3, a client hears only now that it was refused
		if len(answer) == 0 && refusedTLS(err) {
			return nil, explainTLS(addr, err)
		}
		if _, whole, splitErr := codec.Split(answer, maxFrame); whole > 0 || splitErr != nil || err != nil {
			conn.Write(bye) // without it, a node ends the session a little later
			return answer, nil
		}
	}
}

// judge returns nil if the answer to hello comes from a node that accepts clients. Otherwise it
// returns an error that says what is at addr.
func judge(addr string, answer []byte) error {
	body, whole, err := codec.Split(answer, maxFrame)
	if err == nil && whole > 0 {
		switch kind, _ := codec.PeekKind(body); kind {
		case codec.KindWelcome:
			return nil
		case codec.KindError:
			var f codec.ErrorFrame
			if err := codec.DecodeError(body, &f); err == nil {
				hint := ""
				if strings.Contains(f.Message, "TLS only") {
					hint = ": add --tls"
				}
				return fmt.Errorf("%s: the node refuses clients: %s, %s%s", addr, f.Fault, f.Message, hint)
			}
		}
	}
	return fmt.Errorf("%s is not a relay's address for clients: %s", addr, foundInstead(answer))
}

// foundInstead returns the name of a server that gives such an answer.
func foundInstead(answer []byte) string {
	line, _, _ := bytes.Cut(answer, []byte("\n"))
	line = bytes.TrimRight(line[:min(len(line), 80)], "\r")
	switch {
	case len(answer) == 0:
		return "it accepts the connection but does not answer"
	case tlsline.Begins(answer):
		return "it uses TLS: add --tls"
	case bytes.HasPrefix(answer, []byte("HTTP/")):
		return "it speaks HTTP, as a relay's --admin-listen does"
	case answer[0] == '-', answer[0] == '+':
		return fmt.Sprintf("it answers as Redis does, %q", line)
	case bytes.HasPrefix(answer, []byte("INFO {")):
		return "it speaks NATS: add --driver nats"
	}
	return fmt.Sprintf("it answers %q", line)
}

var errNoNode = errors.New("discovery lists no node: start one, or correct the path")
