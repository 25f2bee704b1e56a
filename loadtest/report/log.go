package report

import (
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Log writes histograms in the log format of HdrHistogram, version 1.3, while the run goes on. Its
// values are nanoseconds, and the column Interval_Max has milliseconds. It belongs to one goroutine
// at a time.
type Log struct {
	w     *hdrhistogram.HistogramLogWriter
	begun bool
}

// NewLog makes a Log that writes to w.
func NewLog(w io.Writer) *Log { return &Log{w: hdrhistogram.NewHistogramLogWriter(w)} }

// The tag of the messages that do not count for the figures of a run, such as those of its warm-up.
// The messages that count have no tag.
const tagUnmeasured = "unmeasured"

// Write writes the histograms of the time from start to end. It leaves out empty ones of messages
// that do not count.
func (l *Log) Write(start, end time.Time, measured, unmeasured *hdrhistogram.Histogram) error {
	if !l.begun {
		l.begun = true
		if err := l.head(start); err != nil {
			return err
		}
	}
	if err := l.line(start, end, measured, ""); err != nil {
		return err
	}
	if unmeasured.TotalCount() == 0 {
		return nil
	}
	return l.line(start, end, unmeasured, tagUnmeasured)
}

func (l *Log) head(start time.Time) error {
	if err := l.w.OutputComment("[distmsg loadtest: latencies in nanoseconds]"); err != nil {
		return err
	}
	if err := l.w.OutputLogFormatVersion(); err != nil {
		return err
	}
	if err := l.w.OutputStartTime(start.UnixMilli()); err != nil {
		return err
	}
	return l.w.OutputLegend()
}

func (l *Log) line(start, end time.Time, h *hdrhistogram.Histogram, tag string) error {
	h.SetStartTimeMs(start.UnixMilli())
	h.SetEndTimeMs(end.UnixMilli())
	h.SetTag(tag)
	return l.w.OutputIntervalHistogram(h)
}
