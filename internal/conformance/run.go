package conformance

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"distmsg/codec"
)

// Scenario is one play of the nodes with one client.
type Scenario struct {
	Name   string
	About  string // what the node does, and what the client must do
	limits func(l *codec.Limits)
	script func(p *play)
}

// Scenarios returns all scenarios, in the order of the page. The caller owns the slice.
func Scenarios() []Scenario {
	return slices.Concat(sessionScenarios, wireScenarios, bindingScenarios, messageScenarios, endingScenarios, movingScenarios)
}

// Client runs the program under test for one scenario. The program connects to node. Client returns
// when the program has ended, and ends it when ctx ends. output is the end of what the program
// wrote, for people to read.
type Client func(ctx context.Context, node, scenario string) (output string, err error)

// Config says how scenarios are played.
type Config struct {
	// Client runs the client under test. If it is nil, any connection is the client's.
	Client Client
	// Listen is the address of the first node. Default: a free port of 127.0.0.1.
	Listen string
	// TLS makes the nodes use TLS. It needs a certificate. Default: nil, no TLS.
	TLS *tls.Config
	// Parallel is how many scenarios are played at once. Default: 1.
	Parallel int
	// Arrival is how long the client may take to connect. Default: 10 s.
	Arrival time.Duration
	// Patience is how long the client may take for an answer. Default: 5 s.
	Patience time.Duration
	// Timeout bounds a scenario. Default: 40 s plus Arrival.
	Timeout time.Duration
	// Started, if set, is called for each scenario when its node listens. Calls may run on several
	// goroutines at once.
	Started func(s *Scenario, node string)
	// Ended, if set, is called with each verdict, one call after the other.
	Ended func(v *Verdict)
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Arrival, 10*time.Second)
	set(&c.Patience, 5*time.Second)
	set(&c.Timeout, 40*time.Second+c.Arrival)
	c.Parallel = max(c.Parallel, 1)
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	return c
}

// Run plays the scenarios and returns their verdicts, in the order given. It ends when ctx ends.
// Scenarios that were not played by then get an error.
func Run(ctx context.Context, cfg Config, scenarios []Scenario) []Verdict {
	cfg = cfg.withDefaults()
	verdicts := make([]Verdict, len(scenarios))
	var wg sync.WaitGroup
	var mu sync.Mutex // of Ended
	next := make(chan int)
	for range min(cfg.Parallel, len(scenarios)) {
		wg.Go(func() {
			for i := range next {
				v := run(ctx, &scenarios[i], &cfg)
				verdicts[i] = v
				if cfg.Ended != nil {
					mu.Lock()
					cfg.Ended(&v)
					mu.Unlock()
				}
			}
		})
	}
	for i := range scenarios {
		next <- i
	}
	close(next)
	wg.Wait()
	return verdicts
}

// run plays one scenario.
func run(ctx context.Context, s *Scenario, cfg *Config) Verdict {
	start := time.Now()
	p := newPlay(ctx, s, cfg)
	if s.limits != nil {
		s.limits(&p.limits)
	}
	defer p.close()
	n, err := p.listen("n1", cfg.Listen)
	if err != nil {
		return Verdict{Scenario: s.Name, Result: Err, Reason: err.Error()}
	}
	if cfg.Started != nil {
		cfg.Started(s, n.addr)
	}
	output := p.runClient(cfg.Client, n.addr)
	p.act()
	p.verdict.Millis = since(start)
	p.stop() // stop the client first, because another scenario may get the addresses of this one
	if out := output(); p.verdict.Result != Pass {
		p.verdict.Output = out
	}
	return p.verdict
}

// runClient runs the program in parallel to the scenario. The returned function waits for its end
// and returns its output.
func (p *play) runClient(client Client, addr string) (output func() string) {
	if client == nil {
		return func() string { return "" }
	}
	var text string
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		text, err = client(p.ctx, addr, p.scenario.Name)
		p.emit(event{ended: true, err: err})
	}()
	return func() string {
		<-done
		return text
	}
}
