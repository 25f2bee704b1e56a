package report

import (
	"encoding/csv"
	"io"
	"strconv"

	"distmsg/codec"
	"distmsg/loadtest/result"
)

// CSV writes a time series as a table, one line for each second, while the run goes on. It belongs
// to one goroutine at a time.
type CSV struct {
	w     *csv.Writer
	begun bool
}

// NewCSV makes a CSV that writes to w.
func NewCSV(w io.Writer) *CSV { return &CSV{w: csv.NewWriter(w)} }

// Write writes the line of one point. Before the first, it writes the names of the columns. A cell
// is empty if nothing was measured.
func (c *CSV) Write(p *result.Point) error {
	words := codec.Outcomes()
	if !c.begun {
		c.begun = true
		head := []string{"round", "at_seconds", "length_seconds", "phase", "sent", "delivered", "completed", "rate_per_second",
			"p50_seconds", "p90_seconds", "p99_seconds", "p99_9_seconds", "max_seconds",
			"in_flight", "down_connections", "lost_connections", "moves", "faults"}
		for _, word := range words {
			head = append(head, "outcome_"+word.String())
		}
		if err := c.w.Write(head); err != nil {
			return err
		}
	}
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	float := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	latency := make([]string, 5)
	if l := p.Latency; l != nil {
		for i, v := range []result.Seconds{l.P50, l.P90, l.P99, l.P999, l.Max} {
			latency[i] = float(float64(v))
		}
	}
	line := append([]string{strconv.Itoa(p.Round), float(float64(p.At)), float(float64(p.Length)), string(p.Phase), count(p.Sent), count(p.Delivered),
		count(p.Completed), float(p.Rate())}, latency...)
	line = append(line, strconv.Itoa(p.InFlight), strconv.Itoa(p.DownConnections), count(p.LostConnections), count(p.Moves), count(p.Faults))
	for _, word := range words {
		line = append(line, count(p.Outcomes[word.String()]))
	}
	if err := c.w.Write(line); err != nil {
		return err
	}
	c.w.Flush()
	return c.w.Error()
}
