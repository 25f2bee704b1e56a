package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// view shows a run while it goes on. On a terminal it draws the last minute in place. Elsewhere it
// prints one line a second.
type view struct {
	moments chan moment   // to the terminal; nil: there is none
	notes   chan string   // to the terminal
	ended   chan struct{} // closed when the terminal has its last picture
	lines   io.Writer     // what a run writes its lines to
}

// newView makes a view of runs that take about length.
func newView(out io.Writer, rounds int, length time.Duration) *view {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(file.Fd()) {
		return &view{lines: &sharedWriter{out: out}}
	}
	screen := &screen{rounds: rounds, length: result.Of(length), total: make(map[string]uint64)}
	// Without an input, the terminal stays as it is, and Ctrl-C ends the run as it does elsewhere.
	program := tea.NewProgram(screen, tea.WithOutput(file), tea.WithInput(nil), tea.WithoutSignalHandler())
	v := &view{moments: make(chan moment, 1), notes: make(chan string, 1), ended: make(chan struct{}), lines: io.Discard}
	go func() {
		defer close(v.ended)
		_, _ = program.Run() // a terminal that has gone does not end the load test
	}()
	go func() {
		for {
			select {
			case m, more := <-v.moments:
				if !more {
					program.Quit()
					return
				}
				program.Send(m)
			case text := <-v.notes:
				program.Send(note(text))
			}
		}
	}()
	return v
}

// sharedWriter lets several goroutines write lines.
type sharedWriter struct {
	mu  sync.Mutex
	out io.Writer // guarded by mu
}

func (w *sharedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// moment is a sample with the round that it is from.
type moment struct {
	point result.Point
	round int
}

// observe shows a sample. If the terminal is stopped, it drops the sample, so that the run goes on.
func (v *view) observe(p *loadtest.Sample, round int) {
	if v.moments == nil {
		return
	}
	select {
	case v.moments <- moment{p.Point, round}:
	default:
	}
}

// note is a line about something that has happened.
type note string

// note shows a line. On a terminal, the last one stands in the picture.
func (v *view) note(text string) {
	if v.moments == nil {
		say(v.lines, "%s\n", text)
		return
	}
	select {
	case v.notes <- text:
	default:
	}
}

// close ends the picture. It waits for the terminal for a second at most.
func (v *view) close() {
	if v.moments == nil {
		return
	}
	close(v.moments)
	select {
	case <-v.ended:
	case <-time.After(time.Second):
	}
}

// screen is what the terminal shows. It belongs to the goroutine of bubbletea.
type screen struct {
	rounds int
	length result.Seconds // of a round, without landing
	now    moment
	rates  []float64
	p99s   []float64
	total  map[string]uint64 // outcomes of this round
	note   note              // the last one; empty: none
	width  int               // columns of the terminal; 0: not known yet
}

// Init, Update and View implement tea.Model.
func (s *screen) Init() tea.Cmd { return nil }

func (s *screen) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case note:
		s.note = m
	case tea.WindowSizeMsg:
		s.width = m.Width
	case moment:
		s.add(m)
	}
	return s, nil
}

// add adds a sample.
func (s *screen) add(p moment) {
	if p.round != s.now.round {
		clear(s.total)
	}
	s.now = p
	s.rates = keep(s.rates, p.point.Rate())
	if l := p.point.Latency; l != nil {
		s.p99s = keep(s.p99s, float64(l.P99))
	}
	for word, n := range p.point.Outcomes {
		s.total[word] += n
	}
}

// history is how many seconds the terminal shows.
const history = 50

func keep(values []float64, v float64) []float64 {
	values = append(values, v)
	return values[max(0, len(values)-history):]
}

// fixed is a space at which no line ends.
const fixed = "\u00a0"

// nameWidth is how many columns the names of the lines have.
const nameWidth = 10

// line writes a line with its name. What does not fit the terminal stands in further lines.
func (s *screen) line(b *strings.Builder, name, format string, args ...any) {
	fmt.Fprintf(b, "%-*s", nameWidth, name)
	at := nameWidth
	for word := range strings.SplitAfterSeq(fmt.Sprintf(format, args...), " ") {
		size := len([]rune(word))
		if s.width > 0 && at > nameWidth && at+len([]rune(strings.TrimRight(word, " "))) > s.width {
			fmt.Fprintf(b, "\n%*s", nameWidth, "")
			at = nameWidth
		}
		b.WriteString(strings.ReplaceAll(word, fixed, " "))
		at += size
	}
	b.WriteByte('\n')
}

// room returns how many of at most columns are left in a line after used.
func (s *screen) room(used, columns int) int {
	if s.width == 0 {
		return columns
	}
	return min(max(s.width-nameWidth-used, 0), columns)
}

func (s *screen) View() tea.View {
	if s.now.round == 0 {
		return tea.NewView(string(s.note) + "\nconnecting …\n")
	}
	var b strings.Builder
	line := func(name, format string, args ...any) { s.line(&b, name, format, args...) }
	p := &s.now.point
	at := p.At + p.Length
	done := fmt.Sprintf("%.0fs", float64(at))
	if s.length > 0 {
		done += fmt.Sprintf(" of %s  ", s.length)
		done += bar(float64(at/s.length), s.room(len(done), 30))
	}
	if s.rounds > 1 {
		line("round", "%d of %d", s.now.round, s.rounds)
	}
	line(string(p.Phase), "%s", done)
	line("rate", "%9.0f/s  %s", p.Rate(), spark(s.rates, s.room(13, history)))
	if l := p.Latency; l != nil {
		line("p99", "%11s  %s", l.P99, spark(s.p99s, s.room(13, history)))
		line("latency", strings.ReplaceAll("p50_%s  p90_%s  p99.9_%s  max_%s", "_", fixed), l.P50, l.P90, l.P999, l.Max)
	}
	line("messages", strings.ReplaceAll("in_flight_%d, connections_down_%d", "_", fixed), p.InFlight, p.DownConnections)
	var outcomes []string
	for _, word := range slices.Sorted(maps.Keys(s.total)) {
		outcomes = append(outcomes, fmt.Sprintf("%s"+fixed+"%d", word, s.total[word]))
	}
	if len(outcomes) > 0 {
		line("outcomes", "%s", strings.Join(outcomes, ", "))
	}
	if s.note != "" {
		line("last", "%s", strings.TrimSpace(string(s.note)))
	}
	if p.Faults > 0 {
		line("ledger", "%d FAULTS", p.Faults)
	} else {
		line("ledger", "no fault so far")
	}
	return tea.NewView(b.String())
}

// bar draws a share as a bar of so many columns.
func bar(share float64, width int) string {
	full := int(min(max(share, 0), 1) * float64(width))
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// spark draws the last values as so many columns. The highest is full.
func spark(values []float64, width int) string {
	values = values[max(0, len(values)-width):]
	columns := []rune(fixed + "▁▂▃▄▅▆▇█")
	high := slices.Max(append([]float64{0}, values...))
	var b strings.Builder
	for _, v := range values {
		level := 0
		if high > 0 {
			level = int(v / high * float64(len(columns)-1))
		}
		b.WriteRune(columns[level])
	}
	return b.String()
}
