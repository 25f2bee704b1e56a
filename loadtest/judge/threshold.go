package judge

import (
	"fmt"
	"strconv"
	"strings"

	"distmsg/loadtest/result"
)

// A Condition is a threshold: a comparison that makes a run fail if it holds, such as "p99>2ms".
type Condition struct {
	text    string
	episode string // what its name begins with; empty: the whole run
	name    string
	metric  metric
	op      string
	limit   float64
	share   bool // limit is a share of the messages sent
}

// operators are the comparisons, the longer ones before those that they begin with.
const operators = ">= <= == != > <"

// Parse reads a condition: a metric, an operator, and a value with its unit. The name of an episode
// and a colon may stand before it.
func Parse(text string) (Condition, error) {
	c := Condition{text: strings.TrimSpace(text)}
	c.episode, text = splitEpisode(text)
	at := strings.IndexAny(text, "<>=!")
	if at < 0 {
		return c, fmt.Errorf("%q is no condition: want a metric, one of %s, and a value, such as p99>2ms", text, operators)
	}
	c.name = strings.TrimSpace(text[:at])
	var ok bool
	if c.metric, ok = metrics()[c.name]; !ok {
		return c, fmt.Errorf("%q: there is no metric %q, want %s", text, c.name, nearest(c.name))
	}
	if c.episode != "" && !inEpisodes(c.name) {
		return c, fmt.Errorf("%q: %s is not known of a single episode, only rate, latency, recovery and outcomes are", c.text, c.name)
	}
	rest := text[at:]
	for _, op := range strings.Fields(operators) {
		if strings.HasPrefix(rest, op) {
			c.op = op
			break
		}
	}
	if c.op == "" {
		return c, fmt.Errorf("%q: %q is no operator, want one of %s", text, rest[:1], operators)
	}
	value := strings.TrimSpace(rest[len(c.op):])
	if err := c.parseValue(value); err != nil {
		return c, fmt.Errorf("%q: %w", text, err)
	}
	return c, nil
}

// About reports whether the condition is about this metric of the whole run.
func (c Condition) About(metric string) bool { return c.episode == "" && c.name == metric }

// parseValue reads the number and the unit that fits the metric.
func (c *Condition) parseValue(text string) error {
	end := strings.LastIndexAny(text, "0123456789.") + 1
	number, err := strconv.ParseFloat(text[:end], 64)
	if err != nil || text == "" {
		return fmt.Errorf("%q is no number with a unit, such as %s", text, c.metric.unit.example())
	}
	suffix := strings.TrimSpace(text[end:])
	if suffix == "%" && c.metric.unit == messages {
		c.limit, c.share = number/100, true
		return nil
	}
	factor, ok := c.metric.unit.factor(suffix)
	if !ok && suffix == "" {
		return fmt.Errorf("%s is a time and needs a unit: ns, us, ms, s or m, such as %s", c.name, c.metric.unit.example())
	}
	if !ok {
		return fmt.Errorf("%s has no unit %q, want a value such as %s", c.name, suffix, c.metric.unit.example())
	}
	c.limit = number * factor
	return nil
}

// factor returns what a value with this suffix is multiplied by.
func (u unit) factor(suffix string) (float64, bool) {
	switch u {
	case seconds:
		switch suffix {
		case "ns":
			return 1e-9, true
		case "us", "µs", "μs":
			return 1e-6, true
		case "ms":
			return 1e-3, true
		case "s":
			return 1, true
		case "m":
			return 60, true
		}
		return 0, false
	case perSecond:
		suffix = strings.TrimSuffix(suffix, "/s")
	case bytes:
		switch suffix {
		case "KiB":
			return 1 << 10, true
		case "MiB":
			return 1 << 20, true
		case "GiB":
			return 1 << 30, true
		}
	}
	switch suffix {
	case "":
		return 1, true
	case "k":
		return 1e3, true
	case "M":
		return 1e6, true
	}
	return 0, false
}

func (u unit) example() string {
	return [...]string{seconds: "2ms", perSecond: "100000 or 100k", messages: "0, 10k or 1%", things: "0", bytes: "64MiB"}[u]
}

// nearest names the metrics that a user may have meant: those that share a part of the name, or
// all.
func nearest(name string) string {
	var like []string
	for _, n := range Names() {
		if len(name) > 1 && (strings.Contains(n, name) || strings.Contains(name, n)) {
			like = append(like, n)
		}
	}
	if len(like) == 0 {
		like = Names()
	}
	return strings.Join(like, ", ")
}

// Judge says whether a run fails by the condition. It does if the run did not measure the metric:
// nobody knows then whether the threshold was kept.
func (c Condition) Judge(r *result.Report) result.Threshold {
	if c.episode != "" {
		return c.judgeEpisodes(r)
	}
	return c.judge(r)
}

func (c Condition) judge(r *result.Report) result.Threshold {
	t := result.Threshold{FailIf: c.text}
	v, known := c.metric.of(r)
	if !known {
		t.Missed, t.Found = true, c.name+" was not measured"
		return t
	}
	t.Found = fmt.Sprintf("%s is %s", c.name, c.metric.unit.format(v))
	if c.share {
		if r.Sent == 0 {
			t.Missed, t.Found = true, "no message was sent"
			return t
		}
		v /= float64(r.Sent)
		t.Found = fmt.Sprintf("%s is %.3g%%", c.name, v*100)
	}
	t.Missed = holds(v, c.op, c.limit)
	return t
}

func holds(v float64, op string, limit float64) bool {
	switch op {
	case ">":
		return v > limit
	case ">=":
		return v >= limit
	case "<":
		return v < limit
	case "<=":
		return v <= limit
	case "==":
		return v == limit
	}
	return v != limit
}
