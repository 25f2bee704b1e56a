package result

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// A Soak is what a run of hours found: whether anything grows.
type Soak struct {
	SoakHeader
	Samples []SoakSample `json:"samples"`
	// Settled is the moment from which on samples are judged. What is before is the warm-up of
	// caches and pools.
	Settled Seconds     `json:"settled_seconds"`
	Trends  []SoakTrend `json:"trends"`
	// End is the report of the run, without its timeline. It is null if the run has no end: the
	// tool was killed, or is still running.
	End *Report `json:"end"`
	// Cut says that the last line of the file was not complete.
	Cut bool `json:"last_line_cut"`
}

// SoakHeader is what is known when a soak begins.
type SoakHeader struct {
	// Schema is the constant SchemaSoak.
	Schema   string    `json:"schema"`
	Begun    time.Time `json:"begun"`
	Every    Seconds   `json:"every_seconds"`
	MaxShare float64   `json:"max_growth_share_per_hour"`
	Machine  Machine   `json:"machine"`
	Versions Versions  `json:"versions"`
	Config   Settings  `json:"config"`
	Metrics  string    `json:"metrics"` // the URL that was asked; empty: none
}

// SchemaSoak names the form of the JSON of a Soak, and of the lines of its file.
const SchemaSoak = "distmsg-loadtest-soak/1"

// A SoakSample is what happened in one interval of a soak. Counts are those of this time alone.
type SoakSample struct {
	Point
	// Tool is this process at the end of the interval. It includes the node if that runs in it.
	Tool Usage `json:"tool"`
	// Server is the process Settings.ServerPID, or the one whose metrics were asked. Null: neither.
	Server *Usage `json:"server"`
	// Others is the CPU time that all other processes of this machine have used since it booted.
	// The server is among them if its process is not named. Null: not known.
	Others *Seconds `json:"others_cpu_seconds"`
	// ServerError says why something of the server is not known. It is empty if all is.
	ServerError string `json:"server_error"`
}

// Usage is what a process uses. What is not known is null.
type Usage struct {
	RSS        *uint64 `json:"rss_bytes"`
	FDs        *uint64 `json:"fds"`
	Goroutines *uint64 `json:"goroutines"`
	// CPU is the CPU time since the process began.
	CPU *Seconds `json:"cpu_seconds"`
}

// A SoakTrend says whether one thing grows.
type SoakTrend struct {
	What string `json:"what"`
	Unit string `json:"unit"` // "seconds", "bytes", "count"
	// Start and End are the medians of the first and the last fifth of the samples.
	Start float64 `json:"start"`
	End   float64 `json:"end"`
	// PerHour is the growth an hour, Low and High are its bounds, and Allowed is how much is not
	// too much.
	PerHour float64 `json:"per_hour"`
	Low     float64 `json:"low_per_hour"`
	High    float64 `json:"high_per_hour"`
	Allowed float64 `json:"allowed_per_hour"`
	Grows   bool    `json:"grows"`
	// Own says that it is of the load test, and of no node. Its growth does not count against the
	// system.
	Own     bool   `json:"own"`
	Verdict string `json:"verdict"` // "GROWS", "steady", "cannot tell"
	Why     string `json:"why"`     // why nobody can tell
}

// Verdict returns the exit code of the soak. Unless that is ExitOK, why is one line that gives the
// reason.
func (s *Soak) Verdict() (code ExitCode, why string) {
	code = ExitOK
	if s.End != nil {
		code, why = s.End.Verdict()
	} else if n := len(s.Samples); n > 0 && s.Samples[n-1].Faults > 0 {
		return ExitLedger, fmt.Sprintf("the ledger has faults: %d until the last line", s.Samples[n-1].Faults)
	}
	grow := s.growing(false)
	switch {
	case code == ExitLedger:
	case grow != "" && code == ExitThreshold:
		why = "it grows: " + grow + "; " + why
	case grow != "":
		return ExitThreshold, "it grows: " + grow
	case s.End == nil:
		return ExitFailure, "ended without a last line: the tool was killed, or is still running"
	}
	return code, why
}

// growing lists what grows, of the load test itself or of the system.
func (s *Soak) growing(own bool) string {
	var list []string
	for i := range s.Trends {
		if t := &s.Trends[i]; t.Grows && t.Own == own {
			list = append(list, fmt.Sprintf("%s by %s an hour", t.What, formatGrowth(t.PerHour, t.Unit)))
		}
	}
	return strings.Join(list, ", ")
}

// Summary says in one line what the soak found.
func (s *Soak) Summary() string {
	_, why := s.Verdict()
	unknown := 0
	for i := range s.Trends {
		if s.Trends[i].Why != "" {
			unknown++
		}
	}
	switch {
	case why == "" && unknown == 0:
		why = "the ledger is clean, and nothing of the system grows"
	case why == "":
		why = fmt.Sprintf("the ledger is clean, and nothing of the system is known to grow; nobody can tell of %d of %d", unknown, len(s.Trends))
	}
	if own := s.growing(true); own != "" {
		why += "; not counted, as it is the load test itself: " + own
	}
	if s.End == nil && !strings.HasPrefix(why, "ended") {
		why += "; ended without a last line: the tool was killed, or is still running"
	}
	if s.Cut {
		why += "; its last line is cut off"
	}
	return strings.ToUpper(why[:1]) + why[1:] + "."
}

// SoakHead names the columns of SoakTrend.Row.
func SoakHead() []string {
	return []string{"what", "at the start", "at the end", "per hour", "bounds", "allowed", "verdict"}
}

// Row returns the trend as a row of a table.
func (t *SoakTrend) Row() []string {
	verdict := t.Verdict
	if t.Why != "" {
		verdict += ": " + t.Why
	}
	return []string{t.What, formatLevel(t.Start, t.Unit), formatLevel(t.End, t.Unit), formatGrowth(t.PerHour, t.Unit),
		formatGrowth(t.Low, t.Unit) + " to " + formatGrowth(t.High, t.Unit), formatGrowth(t.Allowed, t.Unit), verdict}
}

func formatLevel(v float64, unit string) string {
	switch unit {
	case "seconds":
		return Seconds(v).String()
	case "bytes":
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	}
	return fmt.Sprintf("%.4g", v)
}

func formatGrowth(v float64, unit string) string {
	if v < 0 {
		return "-" + formatLevel(-v, unit)
	}
	return "+" + formatLevel(v, unit)
}

// Length returns the time from the beginning to the last sample.
func (s *Soak) Length() time.Duration {
	if len(s.Samples) == 0 {
		return 0
	}
	last := &s.Samples[len(s.Samples)-1]
	return (last.At + last.Length).Duration()
}

// WriteText writes the soak as text for people.
func (s *Soak) WriteText(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "soak         %s\ntime         %s, in %d intervals; judged from %s on\n", s.Config.Describe(),
		s.Length().Round(time.Second), len(s.Samples), s.Settled.Duration().Round(time.Second)); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, SoakHead())
	for i := range s.Trends {
		row(t, s.Trends[i].Row())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if s.End != nil {
		if err := s.End.WriteText(w); err != nil {
			return err
		}
	}
	for i := len(s.Samples) - 1; i >= 0; i-- {
		if problem := s.Samples[i].ServerError; problem != "" {
			if _, err := fmt.Fprintf(w, "server       not all is known, last at %s: %s\n", s.Samples[i].At.Duration().Round(time.Second), problem); err != nil {
				return err
			}
			break
		}
	}
	_, err := fmt.Fprintf(w, "verdict      %s\n", s.Summary())
	return err
}
