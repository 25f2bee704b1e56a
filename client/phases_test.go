package client

import "testing"

// A place never moves back: a connection that has closed is not retired again.
func TestPlaceOnlyMovesForward(t *testing.T) {
	for _, tc := range []struct{ from, to, want place }{
		{placeOpen, placeRetired, placeRetired},
		{placeOpen, placeClosed, placeClosed},
		{placeRetired, placeRetired, placeRetired},
		{placeRetired, placeClosed, placeClosed},
		{placeClosed, placeRetired, placeClosed},
		{placeClosed, placeClosed, placeClosed},
	} {
		p := tc.from
		if p.reach(tc.to); p != tc.want {
			t.Errorf("from %d, %d is reached: now %d, not %d", tc.from, tc.to, p, tc.want)
		}
	}
}

func TestOutPhases(t *testing.T) {
	for _, tc := range []struct {
		p                         outPhase
		messages, frames, saidBye bool
		bye, shut                 outPhase
	}{
		{outOpen, true, true, false, outBye, outShut},
		{outBye, false, true, true, outBye, outByeShut},
		{outShut, false, false, false, outShut, outShut},
		{outByeShut, false, false, true, outByeShut, outByeShut},
	} {
		if tc.p.messages() != tc.messages || tc.p.frames() != tc.frames || tc.p.saidBye() != tc.saidBye {
			t.Errorf("phase %d: messages %v, frames %v, saidBye %v", tc.p, tc.p.messages(), tc.p.frames(), tc.p.saidBye())
		}
		if tc.p.bye() != tc.bye || tc.p.shut() != tc.shut {
			t.Errorf("phase %d: after bye %d, after shut %d", tc.p, tc.p.bye(), tc.p.shut())
		}
	}
}

// Each step says what happens at a time, and what the step returns.
func TestDeparture(t *testing.T) {
	type step struct {
		what string
		at   int64
		want bool
	}
	for name, steps := range map[string][]step{
		"the node answers": {
			{"move", 0, true}, {"mayLeave", linger - 1, false}, {"over", leaveTimeout + 1, false}, {"mayLeave", linger, true},
			{"mayLeave", linger, false}, {"over", linger, false}, {"answered", linger, true}, {"over", linger, true},
		},
		"the node does not answer": {
			{"move", 0, true}, {"mayLeave", linger, true}, {"over", leaveTimeout, false}, {"over", leaveTimeout + 1, true},
		},
		"it moves once": {
			{"move", 5, true}, {"move", 500, false}, {"mayLeave", 5 + linger, true}, {"move", 500, false}, {"mayLeave", 900, false},
		},
		"it stays":                     {{"mayLeave", 1 << 40, false}, {"over", 1 << 40, false}},
		"left answers nothing":         {{"answered", 0, true}, {"over", 1 << 40, false}, {"move", 0, true}, {"mayLeave", linger, true}},
		"left comes before leave went": {{"move", 0, true}, {"answered", 1, true}, {"over", 1, false}, {"mayLeave", linger, true}},
	} {
		var d departure
		for i, s := range steps {
			got := true
			switch s.what {
			case "move":
				got = d.move(s.at)
			case "mayLeave":
				got = d.mayLeave(s.at)
			case "over":
				got = d.over(s.at)
			case "answered":
				d.answered()
			}
			if got != s.want {
				t.Errorf("%s: step %d, %s at %d: %v", name, i, s.what, s.at, got)
			}
		}
	}
}

// Of each tick, the table says whether bytes were read and written before it.
func TestActivity(t *testing.T) {
	const beat = 2
	for name, ticks := range map[string][]struct{ heard, spoke, ping, dead bool }{
		"both sides talk": {{true, true, false, false}, {true, true, false, false}, {true, true, false, false}},
		"the node is silent": {
			{false, true, false, false}, {false, true, true, false}, {false, true, false, false},
			{false, true, true, false}, {false, true, false, false}, {false, true, true, true},
		},
		"this side is silent": {
			{true, false, false, false}, {true, false, true, false}, {true, false, false, false}, {true, false, true, false},
		},
		"the node is heard again": {
			{false, true, false, false}, {false, true, true, false}, {true, true, false, false}, {false, true, false, false},
		},
	} {
		a := activity{beat: beat}
		for i, tc := range ticks {
			a.heard.Store(tc.heard)
			a.spoke.Store(tc.spoke)
			a.tick()
			if a.pingDue() != tc.ping || a.dead() != tc.dead {
				t.Errorf("%s: tick %d: ping %v, dead %v", name, i, a.pingDue(), a.dead())
			}
		}
	}
}
