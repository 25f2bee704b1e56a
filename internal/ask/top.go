package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"distmsg/internal/cli"
)

// slowestShown is how many sessions relay top shows.
const slowestShown = 10

func newTop() *cobra.Command {
	var every time.Duration
	var count int
	cmd := newCommand("top", "Show rates, outcomes, limits and slow sessions of all nodes, live",
		`Show rates, outcomes and slow sessions of all nodes, live. Below the rates is a line for each thing that
a node does without, and one that says which clients reach which limits. In a terminal, q ends it, and
the space bar stops it for a while. Elsewhere it prints a table every --every, and with --json one line of JSON.`, cobra.NoArgs,
		func(ctx context.Context, c *call) error {
			if every < 100*time.Millisecond || count < 0 {
				return cli.Usagef("--every %v must be at least 100ms, and --count %d must not be negative", every, count)
			}
			ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
			defer stop()
			if file, ok := c.out.(*os.File); ok && !c.json && count == 0 && term.IsTerminal(file.Fd()) {
				return c.showLive(ctx, file, every)
			}
			return c.printSamples(ctx, every, count)
		})
	cmd.Flags().DurationVar(&every, "every", time.Second, "how long one `interval` is")
	cmd.Flags().IntVar(&count, "count", 0, "print `n` intervals, and end (default: go on until Ctrl-C)")
	return cmd
}

// sample asks all nodes.
func (c *call) sample(ctx context.Context) (s sample, err error) {
	for _, q := range []struct {
		name  string
		query url.Values
		into  any
	}{{"nodes", nil, &s.Nodes}, {"sessions", url.Values{"slowest": {strconv.Itoa(slowestShown)}}, &s.Sessions}} {
		answer, err := c.ask(ctx, q.name, q.query)
		if err != nil {
			return s, err
		}
		if err := json.Unmarshal(answer, q.into); err != nil {
			return s, fmt.Errorf("the answer of --admin %s cannot be read: %w", c.url, err)
		}
	}
	s.At = time.Now()
	sortSlowest(s.Sessions.Answers)
	s.Sessions.Answers = s.Sessions.Answers[:min(slowestShown, len(s.Sessions.Answers))]
	return s, nil
}

// printSamples prints count samples, or as many as there are until ctx ends. It needs one sample
// more, to begin with.
func (c *call) printSamples(ctx context.Context, every time.Duration, count int) error {
	before, err := c.sample(ctx)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	missing := 0
	for n := 0; count == 0 || n < count; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now, err := c.sample(ctx)
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		missing = len(now.Nodes.Missing)
		if err := c.printSample(before, now); err != nil {
			return err
		}
		before = now
	}
	return incomplete(missing)
}

func (c *call) printSample(before, now sample) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(now)
	}
	_, err := fmt.Fprintf(c.out, "%s\n%s\n", now.At.Format(time.TimeOnly), sampleText(before, now))
	return err
}

// sampleText is all that relay top shows.
func sampleText(before, now sample) string {
	var text strings.Builder
	_ = writeTable(&text, rateColumns, ratesOf(before, now)) // nothing can fail
	for _, m := range now.Nodes.Missing {
		fmt.Fprintf(&text, "no answer from %s: %s\n", visible(m.Node), visible(m.Why))
	}
	for _, n := range now.Nodes.Answers {
		for _, line := range n.Degraded {
			fmt.Fprintf(&text, "%s: %s\n", visible(n.Node), visible(line))
		}
	}
	text.WriteString(hitsText(hitsOf(before, now)))
	if len(now.Sessions.Answers) > 0 {
		text.WriteString("\n")
		_ = writeTable(&text, sessionColumns, now.Sessions.Answers)
	}
	return text.String()
}
