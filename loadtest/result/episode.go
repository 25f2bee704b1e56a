package result

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// An Episode is a part of a run with faults, from the moment when a fault begins or ends to the
// next such moment.
type Episode struct {
	// Name is the fault as it is written in the script, or what has ended. That of the first
	// episode is "before any fault".
	Name  string  `json:"name"`
	Fault bool    `json:"fault"` // a fault begins here
	At    Seconds `json:"at_seconds"`
	// Length is the time to the next episode. That of the last includes the landing.
	Length Seconds `json:"length_seconds"`

	// Rate is acked round trips a second. They and the other figures are of the messages that
	// should have left in this time. But a message that was not acked counts for the first fault
	// that began while it was under way.
	Rate     float64           `json:"rate_per_second"`
	Latency  *Latency          `json:"latency_seconds"` // of acked messages; null if there was none
	Outcomes map[string]uint64 `json:"outcomes"`
	// Permitted holds the words of the outcomes that may occur here, besides acked. Unexpected
	// counts the others.
	Permitted  []string          `json:"permitted_outcomes"`
	Unexpected map[string]uint64 `json:"unexpected_outcomes"`

	// FailedReceivers, of a fault, is the number of receivers that had a message that was not acked
	// until the next fault. Of these, MissingReceivers had no acked message any more until then.
	FailedReceivers  int `json:"failed_receivers"`
	MissingReceivers int `json:"missing_receivers"`
	// Recovery, of a fault, is the time from its beginning until each of the others had an acked
	// message, after its last that was not. It is null where no fault begins.
	Recovery *Seconds `json:"recovery_seconds"`
}

// Judge counts what the episode does not permit. Acked is always permitted.
func (e *Episode) Judge(permitted []string) {
	e.Permitted, e.Unexpected = permitted, make(map[string]uint64)
	for word, n := range e.Outcomes {
		if word != "acked" && !slices.Contains(permitted, word) {
			e.Unexpected[word] = n
		}
	}
}

// bad says what is wrong in the episode. It is empty if nothing is.
func (e *Episode) bad() string {
	switch {
	case len(e.Unexpected) > 0:
		return fmt.Sprintf("%s: %s, which it does not permit", e.Name, nonZero(e.Unexpected))
	case e.MissingReceivers > 0:
		return fmt.Sprintf("%s: %d receivers could not be reached again", e.Name, e.MissingReceivers)
	}
	return ""
}

// badEpisodes lists what is wrong in the episodes.
func (r *Report) badEpisodes() (list []string) {
	for i := range r.Episodes {
		if bad := r.Episodes[i].bad(); bad != "" {
			list = append(list, bad)
		}
	}
	return list
}

// Recovered says in words when the receivers could be reached again.
func (e *Episode) Recovered() string {
	switch {
	case e.Recovery == nil:
		return ""
	case e.MissingReceivers > 0:
		return fmt.Sprintf("NOT for %d of %d receivers", e.MissingReceivers, e.FailedReceivers)
	case e.FailedReceivers == 0:
		return "at once"
	}
	return fmt.Sprintf("%s, %d receivers", e.Recovery, e.FailedReceivers)
}

// EpisodeHead names the columns of EpisodeRow.
func EpisodeHead() []string {
	return []string{"from", "episode", "acked", "p50", "p99", "max", "recovered after", "other outcomes"}
}

// Row returns the episode as a row of a table. An episode has no rate if it ended at once, before a
// message should have left.
func (e *Episode) Row() []string {
	row := []string{fmt.Sprintf("%.1fs", float64(e.At)), e.Name, "–", "–", "–", "–", e.Recovered(), ""}
	if len(e.Outcomes) > 0 || e.Length > 1 {
		row[2] = fmt.Sprintf("%.0f/s", e.Rate)
	}
	if l := e.Latency; l != nil {
		row[3], row[4], row[5] = l.P50.String(), l.P99.String(), l.Max.String()
	}
	others := make(map[string]uint64)
	for word, n := range e.Outcomes {
		if word != "acked" {
			others[word] = n
		}
	}
	row[7] = nonZero(others)
	if len(e.Unexpected) > 0 {
		row[7] += " (NOT PERMITTED: " + nonZero(e.Unexpected) + ")"
	}
	return row
}

// writeEpisodes writes the episodes as text for people.
func (r *Report) writeEpisodes(w io.Writer) error {
	if len(r.Episodes) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, EpisodeHead())
	for i := range r.Episodes {
		row(t, r.Episodes[i].Row())
	}
	return t.Flush()
}
