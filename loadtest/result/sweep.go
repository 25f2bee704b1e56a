package result

// A Sweep is a ladder of loads. Each step is a run.
type Sweep struct {
	Schema   string   `json:"schema"`
	Config   Settings `json:"config"` // of the first step
	Machine  Machine  `json:"machine"`
	Versions Versions `json:"versions"`
	// Of is what differs from step to step: "rate", "window" or "conns".
	Of    string `json:"of"`
	Steps []Step `json:"steps"` // in the order of their values
	// Knee is the value of the highest step up to which all steps held. It is null if the lowest
	// did not hold.
	Knee *float64 `json:"knee"`
	// Limits are what a step must keep to hold.
	Limits Limits `json:"limits"`
	// Faults counts the ledger faults of all steps.
	Faults uint64 `json:"faults"`
	// Partial says that the sweep was interrupted.
	Partial bool `json:"partial"`
}

// SchemaSweep names the form of the JSON of a Sweep.
const SchemaSweep = "distmsg-loadtest-sweep/1"

// Limits are what a step of a sweep must keep. A step always needs a clean ledger.
type Limits struct {
	// P99 is the highest p99.
	P99 Seconds `json:"p99_seconds"`
	// Failed is the largest share of messages that may end other than acked, or, in an open loop,
	// may not be sent in time.
	Failed float64 `json:"failed_share"`
	// Behind is the largest share by which the rate of an open loop may stay behind what was asked.
	Behind float64 `json:"behind_share"`
	// FailIf are conditions of which none may hold.
	FailIf []string `json:"fail_if"`
}

// A Step is one run of a sweep.
type Step struct {
	Value float64 `json:"value"`
	Round
	Outcomes map[string]uint64 `json:"outcomes"`
	Held     bool              `json:"held"`
	Why      string            `json:"why"` // why it did not hold
}
