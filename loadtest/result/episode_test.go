package result

import "testing"

// An episode that ended at once has no rate: 0/s would say that nothing was acked.
func TestEpisodeRate(t *testing.T) {
	for want, e := range map[string]Episode{
		"–":     {Length: 0.001},
		"0/s":   {Length: 5},
		"600/s": {Length: 0.5, Rate: 600, Outcomes: map[string]uint64{"acked": 300}},
	} {
		if got := e.Row()[2]; got != want {
			t.Errorf("an episode of %s with the outcomes %v: %q, want %q", e.Length, e.Outcomes, got, want)
		}
	}
}
