package main

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"distmsg/loadtest"
	"distmsg/loadtest/report"
	"distmsg/loadtest/result"
)

// outputFlags say where the results of a command go.
type outputFlags struct {
	json, html string
	quiet      bool
}

func (o *outputFlags) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.json, "json", "", "also write the result to this `file`, as JSON")
	f.StringVar(&o.html, "html", "", "also write a report to this `file`: one HTML page that needs no network")
	f.BoolVar(&o.quiet, "quiet", false, "print nothing but the reason for an exit code that is not 0")
}

// pages are the files of a result.
type pages struct{ json, html *outFile }

// open opens the files.
func (o *outputFlags) open() (p *pages, err error) {
	p = new(pages)
	if p.json, err = openOut("json", o.json); err != nil {
		return nil, err
	}
	if p.html, err = openOut("html", o.html); err != nil {
		p.json.close()
		return nil, err
	}
	return p, nil
}

// write writes a result and its page.
func (p *pages) write(v any, page *report.Page) error {
	return errors.Join(p.json.writeJSON(v), p.html.write(page.WriteHTML))
}

func (p *pages) close() {
	p.json.close()
	p.html.close()
}

// streamFlags say where the figures of each second go while messages flow.
type streamFlags struct{ csv, hdr, prometheus string }

func (o *streamFlags) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.csv, "csv", "", "write a line for each second to this `file`, as CSV, while the run goes on")
	f.StringVar(&o.hdr, "hdr", "", "write the latencies of each second to this `file`, in the log format of HdrHistogram, while the run goes on")
	f.StringVar(&o.prometheus, "prometheus", "", "serve metrics at http://`address`/metrics while the run goes on")
}

// streams are the files that grow while a run goes on, and its metrics.
type streams struct {
	csv, hdr *outFile
	metrics  *metrics
	table    *report.CSV
	log      *report.Log
	mu       sync.Mutex
	failed   error // guarded by mu: the first error of a write
}

// open opens the files, and serves the metrics.
func (o *streamFlags) open() (s *streams, err error) {
	s = new(streams)
	if s.csv, err = openOut("csv", o.csv); err != nil {
		return nil, err
	}
	if s.hdr, err = openOut("hdr", o.hdr); err != nil {
		s.csv.close()
		return nil, err
	}
	if s.metrics, err = serveMetrics(o.prometheus); err != nil {
		s.csv.close()
		s.hdr.close()
		return nil, fmt.Errorf("--prometheus: %w", err)
	}
	return s, nil
}

// observe writes what happened in one second. Rounds follow each other in the same files.
func (s *streams) observe(p *loadtest.Sample, round int) {
	s.metrics.observe(p, round)
	if s.csv.file != nil {
		point := p.Point
		point.Round = round
		s.note(s.writePoint(&point))
	}
	if s.hdr.file != nil {
		s.note(s.writeHistograms(p))
	}
}

func (s *streams) writePoint(p *result.Point) error {
	if s.table == nil {
		w, err := s.csv.begin()
		if err != nil {
			return err
		}
		s.table = report.NewCSV(w)
	}
	return s.table.Write(p)
}

func (s *streams) writeHistograms(p *loadtest.Sample) error {
	if s.log == nil {
		w, err := s.hdr.begin()
		if err != nil {
			return err
		}
		s.log = report.NewLog(w)
	}
	end := time.Now()
	return s.log.Write(end.Add(-p.Length.Duration()), end, p.Measured, p.Other)
}

// note keeps the first error. A full disk does not end a run.
func (s *streams) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
}

func (s *streams) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *streams) close() {
	s.metrics.close()
	s.csv.close()
	s.hdr.close()
}

// unlessQuiet returns w, or nothing that anybody reads.
func (o *outputFlags) unlessQuiet(w io.Writer) io.Writer {
	if o.quiet {
		return io.Discard
	}
	return w
}
