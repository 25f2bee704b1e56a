package result

import (
	"fmt"
	"strings"
	"time"
)

// A Standing says how the node stands against other servers, and against a relay without features,
// the floor.
type Standing struct {
	Schema  string    `json:"schema"`
	Begun   time.Time `json:"begun"`
	Machine Machine   `json:"machine"`
	// Pinning says who ran on which CPU. It is empty if the system chose.
	Pinning string `json:"pinning"`
	// Rounds is the number of runs of each load at each server. The servers take turns.
	Rounds  int      `json:"rounds"`
	Seconds Seconds  `json:"measured_seconds"` // of each run
	Servers []Server `json:"servers"`
	Shapes  []Shape  `json:"shapes"`
	// Faults counts the ledger faults at each server that had any, by its name.
	Faults map[string]uint64 `json:"faults"`
	// Partial says that the comparison was interrupted. It has the rounds that were complete.
	Partial bool `json:"partial"`
}

// SchemaStanding names the form of the JSON of a Standing.
const SchemaStanding = "distmsg-loadtest-compare/2"

// A Server is one of the servers that were compared.
type Server struct {
	Name    string `json:"name"`
	Version string `json:"version"` // empty: not known
}

// A Shape is one load, with what each server needed for it.
type Shape struct {
	Name    string  `json:"name"`
	Title   string  `json:"title"`
	Flags   string  `json:"flags"`  // the load as flags of run
	Metric  Metric  `json:"metric"` // what is compared
	Entries []Entry `json:"entries"`
	Ratios  []Ratio `json:"ratios"`
}

// A Metric is what a Standing compares.
type Metric string

// The metrics.
const (
	ServerCPU Metric = "server_cpu" // CPU of the server for a message
	P99       Metric = "p99"
)

// An Entry is what one server needed. The figures are medians of the rounds. A figure is null if
// nothing was measured.
type Entry struct {
	Server    string   `json:"server"`
	Rate      *float64 `json:"rate_per_second"`
	ServerCPU *Seconds `json:"server_cpu_seconds_per_message"`
	DriverCPU *Seconds `json:"driver_cpu_seconds_per_message"`
	P50       *Seconds `json:"p50_seconds"`
	P99       *Seconds `json:"p99_seconds"`
	// All has the value of the metric in each round. It is 0 where nothing was measured.
	All []Seconds `json:"rounds"`
}

// Median returns the median of the metric, or 0 if nothing was measured.
func (e *Entry) Median(m Metric) Seconds {
	v := e.ServerCPU
	if m == P99 {
		v = e.P99
	}
	if v == nil {
		return 0
	}
	return *v
}

// A Ratio is how many times as much one server needed as another. Value is that of the medians. Low
// and High are the lowest and the highest of the rounds. Value is 0 if it is not known.
type Ratio struct {
	Of    string  `json:"of"`
	To    string  `json:"to"`
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	// Aim is the highest value that is good enough. It is 0 if there is no aim.
	Aim float64 `json:"aim"`
	// Verdict says what became of the aim. It is empty if there is none.
	Verdict Outcome `json:"verdict"`
}

// An Outcome is what became of an aim.
type Outcome string

// The outcomes of aims. Unclear: the aim lies within the noise of the rounds, or there are too few
// rounds to know it. A ratio that is not known misses its aim.
const (
	Reached Outcome = "reached"
	Missed  Outcome = "missed"
	Unclear Outcome = "cannot tell"
)

// Verdict returns the exit code of the comparison. Unless that is ExitOK, why is one line that
// gives the reason. An aim of which nobody can tell is not missed.
func (s *Standing) Verdict() (code ExitCode, why string) {
	missed := s.ended(Missed)
	ours, _ := s.faults()
	switch {
	case len(ours) > 0:
		return ExitLedger, "the ledger has faults: " + nonZero(ours)
	case s.Partial:
		return ExitInterrupted, "interrupted; the tables cover the rounds until then"
	case len(missed) > 0:
		return ExitThreshold, "aims missed: " + strings.Join(missed, "; ")
	}
	return ExitOK, ""
}

// ended lists the ratios whose aims had this outcome.
func (s *Standing) ended(o Outcome) (list []string) {
	for i := range s.Shapes {
		for _, r := range s.Shapes[i].Ratios {
			if r.Verdict == o {
				list = append(list, fmt.Sprintf("%s (%s to %s: %s, at most %.2f)", s.Shapes[i].Name, r.Of, r.To, r.text(), r.Aim))
			}
		}
	}
	return list
}

// faults returns the faults of our node, and those of the others. The others do not promise what
// the ledger judges: nats-server drops the connection of a slow receiver, with its messages.
func (s *Standing) faults() (ours, others map[string]uint64) {
	ours, others = make(map[string]uint64), make(map[string]uint64)
	for server, n := range s.Faults {
		if strings.HasPrefix(server, "node") {
			ours[server] = n
		} else {
			others[server] = n
		}
	}
	return ours, others
}

// Note says what else the reader must know, or nothing.
func (s *Standing) Note() string {
	if _, others := s.faults(); len(others) > 0 {
		return "by the ledger, messages were lost or wrong at servers that promise no better: " + nonZero(others) + "."
	}
	return ""
}

// Aims returns how many ratios have an aim.
func (s *Standing) Aims() (n int) {
	for i := range s.Shapes {
		for _, r := range s.Shapes[i].Ratios {
			if r.Aim > 0 {
				n++
			}
		}
	}
	return n
}

// Clear reports whether there are aims, and each is known to be reached or missed.
func (s *Standing) Clear() bool { return s.Aims() > 0 && len(s.ended(Unclear)) == 0 }

// Summary says in one line what became of the aims, or why there is no verdict on them.
func (s *Standing) Summary() string {
	code, text := s.Verdict()
	unclear, aims := s.ended(Unclear), s.Aims()
	switch {
	case code != ExitOK:
	case aims == 0:
		return "no load of these has an aim"
	case len(unclear) == 0:
		return fmt.Sprintf("all aims (%d) are reached", aims)
	default:
		text = fmt.Sprintf("no aim is known to be missed, %d of %d are reached", aims-len(unclear), aims)
	}
	if len(unclear) > 0 {
		text += "; nobody can tell of " + strings.Join(unclear, "; ") + "; more rounds may tell"
	}
	return text
}

// text returns the value, or a dash.
func (r *Ratio) text() string {
	if r.Value == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", r.Value)
}

// Judgement returns value, spread, aim and verdict as text.
func (r *Ratio) Judgement() (value, spread, aim, verdict string) {
	value, spread, aim, verdict = r.text(), "–", "–", "–"
	if r.Value != 0 {
		spread = fmt.Sprintf("%.2f–%.2f", r.Low, r.High)
	}
	if r.Aim != 0 {
		aim, verdict = fmt.Sprintf("%.2f", r.Aim), string(r.Verdict)
	}
	return value, spread, aim, verdict
}
