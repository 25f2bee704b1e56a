package conformance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/internal/certs/certstest"
)

// program is the client under test that is made of the Go SDK: it does what docs/conformance.md
// asks for.
type program struct {
	s    *client.Session
	bye  chan struct{}
	once sync.Once
}

// sdk runs the program for one scenario. change may change the SDK's configuration.
func sdk(change func(*client.Config)) Client {
	return func(ctx context.Context, node, _ string) (string, error) {
		p := &program{bye: make(chan struct{})}
		ready := make(chan struct{})
		cfg := client.Config{
			Nodes:       []string{node},
			Logger:      slog.New(slog.DiscardHandler),
			DialTimeout: 30 * time.Second, // the machine may be busy
			Handler: func(_ context.Context, d *client.Delivery) {
				<-ready
				p.take(ctx, d)
			},
			OnKick: func(k client.Kick) {
				<-ready
				p.report(ctx, saysKicked, k.ID)
			},
			OnPresence: func(changed []client.Presence) {
				<-ready
				for _, c := range changed {
					p.report(ctx, saysPresence, c.ID, presence(c))
				}
			},
		}
		if change != nil {
			change(&cfg)
		}
		s, err := client.Dial(ctx, cfg)
		if err != nil {
			return "", err
		}
		p.s = s
		close(ready)
		defer func() {
			over, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			s.Close(over)
		}()
		if err := s.Bind(ctx, Driver, Alice, Bob); err != nil {
			return "", err
		}
		select {
		case <-p.bye:
			return "", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// take answers a message, and does what it says if it is an instruction.
func (p *program) take(ctx context.Context, d *client.Delivery) {
	text := string(d.Payload)
	if reason, ok := strings.CutPrefix(text, RejectPrefix); ok {
		d.Reject(reason)
		return
	}
	d.Reply(d.Payload)
	if d.To == Driver {
		words := strings.Split(text, " ")
		go p.do(ctx, words[0], words[1:])
	}
}

func (p *program) do(ctx context.Context, verb string, args []string) {
	switch verb {
	case doSend:
		p.messages(ctx, args, func(k int, m client.Message) {
			_, err := p.s.Send(ctx, m)
			p.outcome(ctx, m.To, k, err)
		})
	case doPost:
		p.messages(ctx, args, func(_ int, m client.Message) { p.s.Post(ctx, m) })
	case doMulticast:
		results, err := p.s.Multicast(ctx, client.Message{From: Alice, Payload: Numbered(1, 0)}, args)
		if errors.Is(err, client.ErrNotSupported) {
			p.report(ctx, saysCannot, verb)
			return
		}
		for k, to := range args {
			if err == nil && results[k].Err != nil {
				p.outcome(ctx, to, k+1, results[k].Err)
				continue
			}
			p.outcome(ctx, to, k+1, err)
		}
	case doBind, doBindNew:
		err := p.s.BindWith(ctx, client.BindOptions{RejectNew: verb == doBindNew}, args[0])
		p.report(ctx, saysBound, args[0], word(err, codec.CodeOK))
	case doUnbind:
		p.report(ctx, saysUnbound, args[0], word(p.s.Unbind(ctx, args[0]), codec.CodeOK))
	case doWatch:
		found, err := p.s.Watch(ctx, args[0])
		if err == nil {
			p.report(ctx, saysPresence, args[0], presence(found[0]))
		}
	case doBye:
		p.once.Do(func() { close(p.bye) })
	default:
		p.report(ctx, saysCannot, verb)
	}
}

// messages calls send for each message of an instruction, all at once.
func (p *program) messages(ctx context.Context, args []string, send func(k int, m client.Message)) {
	n, _ := strconv.Atoi(args[1])
	size, _ := strconv.Atoi(args[2])
	for k := 1; k <= n; k++ {
		go send(k, client.Message{From: Alice, To: args[0], Payload: Numbered(k, size)})
	}
}

func (p *program) outcome(ctx context.Context, to string, k int, err error) {
	delivered := codec.DeliveredYes
	if e := (*client.Error)(nil); errors.As(err, &e) {
		delivered = e.Delivered()
	}
	p.report(ctx, saysOutcome, to, fmt.Sprint(k), word(err, codec.CodeAcked), delivered.String())
}

func (p *program) report(ctx context.Context, words ...string) {
	_, _ = p.s.Send(ctx, client.Message{From: Driver, To: Report, Payload: []byte(strings.Join(words, " "))})
}

// word is the code of an error of the SDK as the protocol spells it.
func word(err error, good codec.Code) string {
	var e *client.Error
	switch {
	case err == nil:
		return good.String()
	case errors.As(err, &e):
		return e.Code.String()
	}
	return err.Error()
}

func presence(p client.Presence) string {
	if p.Online() {
		return "online"
	}
	return "offline"
}

// passes plays all scenarios with a client that must pass them, but for those that it skips.
func passes(t *testing.T, cfg Config, skipped ...string) {
	t.Helper()
	for _, v := range Run(t.Context(), cfg, Scenarios()) {
		want := Pass
		for _, name := range skipped {
			if name == v.Scenario {
				want = Skip
			}
		}
		if v.Result != want {
			var text strings.Builder
			v.Write(&text)
			t.Errorf("want %s:\n%s", want, text.String())
		}
	}
}

// TestGoSDKPassesOverTLS plays some scenarios over TLS: those that end connections in various ways.
func TestGoSDKPassesOverTLS(t *testing.T) {
	ca := certstest.NewCA(t, "ca")
	pair := ca.Issue(t, certstest.Request{})
	cfg := Config{
		TLS:      &tls.Config{Certificates: []tls.Certificate{pair.TLS}},
		Client:   sdk(func(c *client.Config) { c.TLS = &tls.Config{RootCAs: ca.Pool()} }),
		Parallel: 8, Arrival: time.Minute, Patience: 20 * time.Second,
	}
	var some []Scenario
	for _, s := range Scenarios() {
		if slices.Contains([]string{"hello", "half-open", "reads-while-writing", "pieces", "reset", "fenced", "drain"}, s.Name) {
			some = append(some, s)
		}
	}
	for _, v := range Run(t.Context(), cfg, some) {
		if v.Result != Pass {
			var text strings.Builder
			v.Write(&text)
			t.Error(text.String())
		}
	}
	if len(some) != 7 {
		t.Errorf("only %d scenarios were played", len(some))
	}
}

func TestGoSDKPasses(t *testing.T) {
	passes(t, Config{Client: sdk(nil), Parallel: 25, Arrival: time.Minute, Patience: 20 * time.Second})
}
