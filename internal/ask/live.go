package ask

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// live is relay top in a terminal. It belongs to the goroutine of bubbletea.
type live struct {
	take  func() (sample, error)
	every time.Duration

	width, height int
	before, now   sample // before is zero until there are two
	trouble       error  // why there is no newer sample
	paused        bool
}

var _ tea.Model = (*live)(nil)

// showLive shows samples until somebody ends it, or ctx ends.
func (c *call) showLive(ctx context.Context, terminal *os.File, every time.Duration) error {
	if _, err := c.sample(ctx); err != nil { // say it on the ordinary screen
		return err
	}
	model := &live{take: func() (sample, error) { return c.sample(ctx) }, every: every}
	_, err := tea.NewProgram(model, tea.WithContext(ctx), tea.WithOutput(terminal)).Run()
	if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// taken is the message that a sample was taken, and due the one that it is time for the next.
type (
	taken struct {
		sample
		err error
	}
	due struct{}
)

// Init implements tea.Model.
func (l *live) Init() tea.Cmd { return l.ask }

func (l *live) ask() tea.Msg {
	s, err := l.take()
	return taken{s, err}
}

// Update implements tea.Model.
func (l *live) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		l.width, l.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return l, tea.Quit
		case "space":
			l.paused = !l.paused
		}
	case taken:
		if l.trouble = msg.err; msg.err == nil && !l.paused {
			l.before, l.now = l.now, msg.sample
		}
		return l, tea.Tick(l.every, func(time.Time) tea.Msg { return due{} })
	case due:
		return l, l.ask
	}
	return l, nil
}

// View implements tea.Model.
func (l *live) View() tea.View {
	view := tea.NewView(l.text())
	view.AltScreen, view.WindowTitle = true, "relay top"
	return view
}

// text is the screen, cut to its size.
func (l *live) text() string {
	head := "relay top  " + l.now.At.Format(time.TimeOnly) + "  q: end, space: pause"
	if l.paused {
		head += "  (paused)"
	}
	if l.trouble != nil {
		head += "\n" + visible(fmt.Sprint(l.trouble))
	}
	lines := strings.Split(head+"\n\n"+sampleText(l.before, l.now), "\n")
	if l.height > 0 && len(lines) > l.height {
		lines = lines[:l.height]
	}
	for i, line := range lines {
		if runes := []rune(line); l.width > 0 && len(runes) > l.width {
			lines[i] = string(runes[:l.width])
		}
	}
	return strings.Join(lines, "\n")
}
