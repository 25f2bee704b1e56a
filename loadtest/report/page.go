package report

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strconv"

	"distmsg/internal/uplot"
	"distmsg/loadtest/result"
)

// A Page is one HTML page. It holds all that it shows: it loads nothing from anywhere.
type Page struct {
	Title    string
	Subtitle string
	Verdict  Verdict
	Tiles    []Tile
	Charts   []Chart
	Tables   []Table
	Notes    []string
}

// A Verdict is the one thing that the reader must not miss.
type Verdict struct {
	Mood Mood
	Text string
}

// A Mood chooses a colour. The text always says the same in words.
type Mood string

// The moods.
const (
	Good    Mood = "good"
	Bad     Mood = "bad"
	Unclear Mood = "unclear"
)

// A Tile is one important figure.
type Tile struct{ Name, Value, Hint string }

// A Chart is a diagram with its data as a table beside it.
type Chart struct {
	ID     string   `json:"id"`
	Title  string   `json:"title"`
	Hint   string   `json:"-"`
	Kind   Kind     `json:"kind"`
	X      Axis     `json:"x"`
	Y      Axis     `json:"y"`
	Lines  []Line   `json:"lines"`
	Marks  []Mark   `json:"marks"`
	Labels []string `json:"labels"` // of the x values, if they are no numbers
}

// A Kind is how a chart is drawn.
type Kind string

// The kinds of charts.
const (
	Lines Kind = "lines"
	Bars  Kind = "bars"
)

// An Axis names what it measures. Unit is "s" for times, "/s" for rates, or empty.
type Axis struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Log    bool      `json:"log"`
	Values []float64 `json:"values"` // of the x axis
}

// A Line has one value for each of the x axis. NaN means none.
type Line struct {
	Name   string  `json:"name"`
	Values []Value `json:"values"`
}

// A Value is null in JSON if it is not a number.
type Value float64

// MarshalJSON writes the value.
func (v Value) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(v)) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(v), 'g', 6, 64), nil
}

// A Mark is a moment at which something happened.
type Mark struct {
	At   float64 `json:"at"`
	Text string  `json:"text"`
	Mood Mood    `json:"mood"`
}

// A Table is plain text in rows. The first cell of each row is its name.
type Table struct {
	Caption string
	Head    []string
	Rows    [][]string
}

// Wide reports whether the table has too many columns for half of the page.
func (t Table) Wide() bool { return len(t.Head) > 6 }

// maxRows is how many rows the table of a chart has. If the chart has more values, the table leaves
// out some at equal distances.
const maxRows = 240

// Table returns the values of the chart.
func (c *Chart) Table() Table {
	t := Table{Caption: c.Title, Head: []string{c.X.Name}}
	for _, l := range c.Lines {
		t.Head = append(t.Head, l.Name)
	}
	step := (len(c.X.Values) + maxRows - 1) / maxRows
	if step > 1 {
		t.Caption += fmt.Sprintf(" (each %d. value of %d)", step, len(c.X.Values))
	}
	for i := 0; i < len(c.X.Values); i += max(step, 1) {
		name := format(c.X.Values[i], c.X.Unit)
		if len(c.Labels) > 0 {
			name = c.Labels[i]
		}
		row := []string{name}
		for _, l := range c.Lines {
			row = append(row, format(float64(l.Values[i]), c.Y.Unit))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func format(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case unit == "s":
		return result.Seconds(v).String()
	case unit == "/s":
		return fmt.Sprintf("%.0f", v)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// Describe says in words what the chart shows, for those who do not see it.
func (c *Chart) Describe() string {
	text := "Chart: " + c.Title + "."
	for _, l := range c.Lines {
		low, high := math.Inf(1), math.Inf(-1)
		for _, v := range l.Values {
			if !math.IsNaN(float64(v)) {
				low, high = min(low, float64(v)), max(high, float64(v))
			}
		}
		if low <= high {
			text += fmt.Sprintf(" %s: from %s to %s.", l.Name, format(low, c.Y.Unit), format(high, c.Y.Unit))
		}
	}
	return text + " The values are in the table below."
}

//go:embed page.html page.css page.js
var files embed.FS

// WriteHTML writes the page.
func (p *Page) WriteHTML(w io.Writer) error {
	source, err := files.ReadFile("page.html")
	if err != nil {
		return err
	}
	style, err := files.ReadFile("page.css")
	if err != nil {
		return err
	}
	script, err := files.ReadFile("page.js")
	if err != nil {
		return err
	}
	page, err := template.New("page").Parse(string(source))
	if err != nil {
		return err
	}
	return page.Execute(w, map[string]any{
		"Page": p, "Style": template.CSS(uplot.CSS() + string(style)), "Library": template.JS(uplot.JS()), "Script": template.JS(script),
		"License": uplot.License(),
	})
}
