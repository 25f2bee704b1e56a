package report

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"

	"distmsg/loadtest/result"
)

// The measures of a picture in pixels.
const (
	svgWidth  = 860
	svgLeft   = 130 // of the bars
	svgRight  = 60  // for the number at the end of a bar
	svgTop    = 40
	barHeight = 13
	barGap    = 3
	groupGap  = 16
)

// maxRatio is where the axis ends.
const maxRatio = 16

// WriteSVG draws how many times as much CPU each server needs as another: as the floor, or as the
// one that the ratios of the shape compare with. The axis is logarithmic and begins at 1. A short
// line across the bars is an aim. The same standing always makes the same picture.
func WriteSVG(w io.Writer, s *result.Standing) error {
	var b strings.Builder
	y := svgTop
	for i := range s.Shapes {
		if shape := &s.Shapes[i]; shape.Metric == result.ServerCPU && len(shape.Ratios) > 0 {
			y = drawShape(&b, shape, y) + groupGap
		}
	}
	out := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="CPU of each server for a message, as a ratio">`,
		svgWidth, y, svgWidth, y) + svgStyle + axis(y) + b.String() + "</svg>\n"
	_, err := io.WriteString(w, out)
	return err
}

const svgStyle = `
<style>
text { font: 12px system-ui, sans-serif; fill: #1b2230 } .soft { fill: #566072 } .back { fill: #fff }
.grid { stroke: #d9dee7 } .aim { stroke: #a11414; stroke-width: 2 } .node { fill: #1f6feb } .other { fill: #94a3b8 }
@media (prefers-color-scheme: dark) {
  text { fill: #e7ebf2 } .soft { fill: #a4afc0 } .back { fill: #10141b } .grid { stroke: #313a49 }
  .aim { stroke: #ff9d9d } .node { fill: #6ea8ff } .other { fill: #64748b }
}
</style>
<rect class="back" width="100%" height="100%"/>
`

// at returns where a ratio is on the axis.
func at(ratio float64) float64 {
	const span = svgWidth - svgLeft - svgRight
	return svgLeft + span*math.Log(min(max(ratio, 1), maxRatio))/math.Log(maxRatio)
}

func axis(height int) string {
	var b strings.Builder
	for r := 1; r <= maxRatio; r *= 2 {
		fmt.Fprintf(&b, "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", at(float64(r)), svgTop-8, at(float64(r)), height-groupGap)
		fmt.Fprintf(&b, "<text class=\"soft\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d×</text>\n", at(float64(r)), svgTop-14, r)
	}
	return b.String()
}

// drawShape draws the bars of one shape from y on and returns where they end.
func drawShape(b *strings.Builder, s *result.Shape, y int) int {
	base := s.Ratios[0].To
	var least float64
	for i := range s.Entries {
		if s.Entries[i].Server == base {
			least = float64(s.Entries[i].Median(s.Metric))
		}
	}
	fmt.Fprintf(b, "<text x=\"8\" y=\"%d\">%s <tspan class=\"soft\">(%s: %s µs)</tspan></text>\n", y+barHeight-2,
		html.EscapeString(s.Title), html.EscapeString(base), result.ServerCPU.Figure(result.Seconds(least)))
	y += barHeight + barGap
	for i := range s.Entries {
		e := &s.Entries[i]
		if e.Server == base || e.Median(s.Metric) == 0 || least == 0 {
			continue
		}
		ratio := float64(e.Median(s.Metric)) / least
		class := "other"
		if strings.HasPrefix(e.Server, "node") {
			class = "node"
		}
		fmt.Fprintf(b, "<rect class=%q x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>\n", class, svgLeft, y, max(at(ratio)-svgLeft, 1), barHeight)
		aim, number := aimOf(s, e.Server, base), at(ratio)
		if behind := at(aim) - number; behind > 0 && behind < svgRight {
			number = at(aim) // the aim would cross the number
		}
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\">%.2f</text>\n", number+5, y+barHeight-2, ratio)
		fmt.Fprintf(b, "<text class=\"soft\" x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", svgLeft-6, y+barHeight-2, html.EscapeString(e.Server))
		if aim > 0 {
			fmt.Fprintf(b, "<line class=\"aim\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", at(aim), y-2, at(aim), y+barHeight+2)
		}
		y += barHeight + barGap
	}
	return y
}

func aimOf(s *result.Shape, of, to string) float64 {
	for _, r := range s.Ratios {
		if r.Of == of && r.To == to {
			return r.Aim
		}
	}
	return 0
}
