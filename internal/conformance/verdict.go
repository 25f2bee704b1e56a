package conformance

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
)

// Result says how a scenario ended.
type Result string

// The results.
const (
	Pass Result = "pass"
	Fail Result = "fail"  // the client broke a rule
	Skip Result = "skip"  // the client does not claim the feature
	Err  Result = "error" // the scenario could not be played: it says nothing about the client
)

// Verdict is what one scenario found.
type Verdict struct {
	Scenario string `json:"scenario"`
	Result   Result `json:"result"`
	Reason   string `json:"reason,omitempty"` // of skip and error
	Fault    *Fault `json:"fault,omitempty"`  // of fail: the first broken rule
	Millis   int64  `json:"ms"`
	Output   string `json:"output,omitempty"` // the end of what the client wrote, unless it passed
}

// Fault is a rule that a client broke.
type Fault struct {
	// the heading in docs/protocol.md, or in docs/conformance.md for the contract
	Section  string `json:"section"`
	Expected string `json:"expected"` // what the client had to do
	Got      string `json:"got"`      // what it did
	// the offending frame in hex, length prefix included; empty if nothing came
	Frame string `json:"frame,omitempty"`
	// the frame that the node wrote last on that connection, in hex
	After string `json:"after,omitempty"`
}

// maxHex is how many bytes of a frame a fault shows.
const maxHex = 512

// hexOf formats a frame as the protocol's page does.
func hexOf(frame []byte) string {
	if len(frame) <= maxHex {
		return spaced(frame)
	}
	return fmt.Sprintf("%s … (%d bytes)", spaced(frame[:maxHex]), len(frame))
}

func spaced(b []byte) string {
	digits := hex.EncodeToString(b)
	var s strings.Builder
	for i := 0; i < len(digits); i += 2 {
		if i > 0 {
			s.WriteByte(' ')
		}
		s.WriteString(digits[i : i+2])
	}
	return s.String()
}

// anchor returns the link to a section.
func anchor(section string) string {
	if section == contractSection {
		return "docs/conformance.md#" + slug(section)
	}
	return "docs/protocol.md#" + slug(section)
}

// slug returns the name that Markdown renderers give to a heading.
func slug(heading string) string {
	keep := func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '_', r == '-', r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}
	return strings.Map(keep, strings.ToLower(heading))
}

// Write writes the verdict for people to read.
func (v *Verdict) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-5s %-22s %5.1fs", v.Result, v.Scenario, float64(v.Millis)/1000)
	if v.Reason != "" {
		fmt.Fprintf(&b, "  %s", v.Reason)
	}
	b.WriteByte('\n')
	if f := v.Fault; f != nil {
		fmt.Fprintf(&b, "      section:  %s (%s)\n      expected: %s\n      got:      %s\n", f.Section, anchor(f.Section), f.Expected, f.Got)
		for _, part := range []struct{ name, frame string }{{"frame:    ", f.Frame}, {"after:    ", f.After}} {
			if part.frame != "" {
				fmt.Fprintf(&b, "      %s%s\n", part.name, part.frame)
			}
		}
	}
	for line := range strings.Lines(v.Output) {
		fmt.Fprintf(&b, "      client:   %s\n", strings.TrimRight(line, "\n"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Count returns how many verdicts have the result.
func Count(verdicts []Verdict, r Result) (n int) {
	for i := range verdicts {
		if verdicts[i].Result == r {
			n++
		}
	}
	return n
}

// since returns the time since start, in milliseconds.
func since(start time.Time) int64 { return time.Since(start).Milliseconds() }
