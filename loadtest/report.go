package loadtest

import (
	"fmt"
	"time"

	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/shape"
	"distmsg/loadtest/result"
)

// What a run found, see package result.
type (
	Report   = result.Report
	Settings = result.Settings
	Faults   = result.Faults
	ExitCode = result.ExitCode
)

// The exit codes of all programs of this project.
const (
	ExitOK          = result.ExitOK
	ExitFailure     = result.ExitFailure
	ExitUsage       = result.ExitUsage
	ExitLedger      = result.ExitLedger
	ExitThreshold   = result.ExitThreshold
	ExitDrain       = result.ExitDrain
	ExitInterrupted = result.ExitInterrupted
)

// known returns what the report begins with.
func (r *run) known() *Report {
	return &Report{Schema: result.Schema, Begun: r.t.Clock.Round(time.Millisecond), Machine: machine(), Versions: r.versions(), Config: r.settings()}
}

// report makes the report.
func (r *run) report() *Report {
	t, l := r.t, r.t.Ledger
	silence, since := l.Time.Silence()
	m := &t.Meter
	known := r.known()
	report := &Report{
		Schema: known.Schema, Begun: known.Begun, Machine: known.Machine, Versions: known.Versions, Config: known.Config, Partial: r.partial, Measured: result.Of(time.Duration(t.Meter.To - t.Meter.From)),
		Sent: l.Sent(), Delivered: l.Delivered(), Acked: l.Acked(), Outcomes: l.OutcomeWords(), Faults: faults(l),
		ExpectedNoRoute: l.ExpectedNoRoutes(), Unsent: t.Unsent(), Latency: result.LatencyOf(r.samples.measured), Distribution: result.DistributionOf(r.samples.measured),
		Moves: t.Moves, Timeline: r.samples.points, Slowest: slowest(&l.Time),
		MaxSilence: result.Seconds(silence) / 1e9, MaxSilenceAt: result.Seconds(since) / 1e9,
		LostConnections: t.Lost, DownConnections: uint64(t.DownConns()), Drains: t.Drains, Errors: t.Trouble, Episodes: episodes(l.Episodes(), t.Now),
		Silent: r.silent, Landing: result.Of(r.landing), Unanswered: l.Unanswered(),
	}
	if l.Sent() > 0 && t.Places.Several() && r.cfg.Attach == 1 {
		report.Cross = new(float64(t.Crossed) / float64(l.Sent()))
	}
	if report.Measured > 0 {
		report.Rate = new(float64(m.Done) / float64(report.Measured))
	}
	report.Completed = m.During
	report.DriverCPU = result.PerMessage(r.to.driver-r.from.driver, m.During)
	switch {
	case r.server != nil:
		report.ServerError = r.server.Error()
	case (r.cfg.ServerPID != 0 || r.remote()) && report.Measured > 0:
		report.ServerCPU = result.PerMessage(r.to.server-r.from.server, m.During)
		report.ServerRSS = &r.to.serverRSS
	}
	report.Rounds = []result.Round{report.Round()}
	return report
}

func (r *run) settings() Settings {
	c := &r.cfg
	return Settings{
		Run: fmt.Sprintf("%016x", r.id), Nodes: c.Nodes, InProcess: r.inProcess, Loops: c.Loops, Driver: string(c.Driver), TLS: c.TLS != nil,
		Attach: c.Attach, Strategy: c.Strategy,
		Conns: c.Conns, IDsPerConn: c.IDsPerConn, Payload: c.Payload, Fanout: c.Fanout, Ack: !c.NoAck, Window: c.Window, Rate: c.Rate,
		Warmup: result.Of(c.Warmup), Duration: result.Of(c.Duration), Grace: result.Of(c.Grace),
		Cross: c.Cross, Seed: c.Seed, ServerPID: c.ServerPID, Metrics: c.Metrics,
		Stages: shape.FormatStages(c.Stages), Arrivals: c.arrivals(), Payloads: shape.FormatSizes(c.Payloads), Zipf: c.Zipf, Offline: c.Offline,
		AckDelay: result.Of(c.AckDelay), ChurnBinds: c.Churn.Binds, ChurnMoves: c.Churn.Moves, ChurnReconnects: c.Churn.Reconnects,
	}
}

func faults(l *ledger.Ledger) Faults { return Faults(l.Faults()) }

// slowest returns the longest time to an outcome, by word.
func slowest(t *ledger.Timeline) map[string]result.Seconds {
	words := make(map[string]result.Seconds)
	for word, ns := range t.Slowest() {
		words[word] = result.Seconds(ns) / 1e9
	}
	return words
}
