package result

// A Comparison says how a run, After, differs from an earlier one, Before.
type Comparison struct {
	Schema string `json:"schema"`
	Before Side   `json:"before"`
	After  Side   `json:"after"`
	// Changes compares the metrics that both runs have measured.
	Changes []Change `json:"changes"`
	// Warnings say why the two runs may not be comparable, such as a difference in their loads.
	Warnings []string `json:"warnings"`
	// Verdict is the verdict on all changes together.
	Verdict Trend `json:"verdict"`
	// Faults is the number of ledger faults of After. If it is not 0, the verdict is Worse.
	Faults uint64 `json:"faults"`
}

// SchemaComparison names the form of the JSON of a Comparison.
const SchemaComparison = "distmsg-loadtest-diff/1"

// A Side is one of the two runs.
type Side struct {
	Name     string   `json:"name"` // usually the name of a file
	Rounds   int      `json:"rounds"`
	Config   Settings `json:"config"`
	Machine  Machine  `json:"machine"`
	Versions Versions `json:"versions"`
}

// A Change is how one metric differs. Ratio is After divided by Before, of the medians of the
// rounds. With noise as in these rounds, it lies between Low and High 19 times out of 20.
type Change struct {
	Metric string    `json:"metric"`
	Unit   string    `json:"unit"` // "seconds", "per_second" or "bytes"
	Before float64   `json:"before"`
	After  float64   `json:"after"`
	Ratio  float64   `json:"ratio"`
	Low    float64   `json:"low"`
	High   float64   `json:"high"`
	Trend  Trend     `json:"trend"`
	All    [2]Rounds `json:"rounds"` // the values of the rounds, before and after
}

// Rounds are the values of a metric in each round.
type Rounds []float64

// A Trend says whether a change is for the better.
type Trend string

// The trends. CannotTell: the difference is within the noise, or smaller than what the user cares
// about, or there are too few rounds to know the noise.
const (
	Better     Trend = "better"
	Worse      Trend = "worse"
	CannotTell Trend = "cannot tell"
)
