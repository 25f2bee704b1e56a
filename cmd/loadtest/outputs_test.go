package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// TestOutputs makes one run and reads all its files. They agree with each other.
func TestOutputs(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	var stdout, stderr bytes.Buffer
	args := []string{"--conns", "4", "--warmup", "0", "--duration", "500ms", "--rounds", "2", "--fail-if", "missing>0", "--quiet",
		"--json", in("a.json"), "--csv", in("a.csv"), "--hdr", in("a.hlog"), "--html", in("a.html")}
	if code := run(args, &stdout, &stderr); code != loadtest.ExitOK || stdout.Len()+stderr.Len() > 0 {
		t.Fatalf("exit code %d, it says %q and %q", code, &stdout, &stderr)
	}
	r, err := readReport(in("a.json"))
	if err != nil || r.Acked == 0 || len(r.Rounds) != 2 || len(r.Thresholds) != 1 || r.Rounds[0].Sent+r.Rounds[1].Sent != r.Sent {
		t.Fatalf("%v: %+v", err, r)
	}
	checkTable(t, in("a.csv"), r)
	checkLog(t, in("a.hlog"), r)
	if page, err := os.ReadFile(in("a.html")); err != nil || !bytes.Contains(page, []byte("Latency over time")) {
		t.Errorf("the page: %v, %d bytes", err, len(page))
	}

	code := run([]string{"diff", in("a.json"), in("a.json"), "--json", in("d.json"), "--html", in("d.html")}, &stdout, &stderr)
	if code != loadtest.ExitOK || !strings.Contains(stdout.String(), "verdict: cannot tell") {
		t.Errorf("diff of a run with itself: exit code %d, %s%s", code, &stdout, &stderr)
	}
	var c result.Comparison
	if data, err := os.ReadFile(in("d.json")); err != nil || json.Unmarshal(data, &c) != nil || c.Schema != result.SchemaComparison || len(c.Changes) == 0 {
		t.Errorf("%v: %+v", err, c)
	}
}

// TestSweepOutputs makes a sweep with the figures of each second, a step of which does not run.
// What was found until then is written.
func TestSweepOutputs(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	var stdout, stderr bytes.Buffer
	args := []string{"sweep", "--conns", "4", "--warmup", "0", "--duration", "300ms", "--steps", "20,1000,200000000", "--fail-if", "sent>200",
		"--json", in("a.json"), "--csv", in("a.csv"), "--hdr", in("a.hlog"), "--html", in("a.html")}
	if code := run(args, &stdout, &stderr); code != loadtest.ExitUsage || !strings.Contains(stderr.String(), "rate 2e+08: --rate is 2e+08") {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
	s, err := readResult[result.Sweep](in("a.json"), "sweep", result.SchemaSweep)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Steps) != 2 || !s.Steps[0].Held || s.Steps[1].Held || !strings.HasPrefix(s.Steps[1].Why, "sent>200 (sent is ") || s.Limits.FailIf[0] != "sent>200" {
		t.Errorf("%+v", s)
	}
	checkTable(t, in("a.csv"), sumOf(s))
	checkLog(t, in("a.hlog"), sumOf(s))
}

// sumOf returns the counts of all steps.
func sumOf(s *result.Sweep) *loadtest.Report {
	r := new(loadtest.Report)
	for i := range s.Steps {
		r.Sent, r.Acked = r.Sent+s.Steps[i].Sent, r.Acked+s.Steps[i].Acked
	}
	return r
}

// TestNobodyReads makes a run whose output nobody reads any more. Its files and its exit code are
// as if somebody did.
func TestNobodyReads(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer writer.Close()
	file := filepath.Join(t.TempDir(), "a.json")
	cmd := exec.Command(self, "--conns", "4", "--warmup", "0", "--duration", "100ms", "--fail-if", "p99>0s", "--json", file)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = writer, writer
	_ = cmd.Run()
	if code := loadtest.ExitCode(cmd.ProcessState.ExitCode()); code != loadtest.ExitThreshold {
		t.Errorf("exit code %d, %v", code, cmd.ProcessState)
	}
	if r, err := readReport(file); err != nil || r.Sent == 0 {
		t.Errorf("%v: %+v", err, r)
	}
}

// checkTable compares the sums of the time series with the report.
func checkTable(t *testing.T, file string, r *loadtest.Report) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil || len(lines) < 3 {
		t.Fatalf("%d lines: %v", len(lines), err)
	}
	var sent, acked uint64
	for _, line := range lines[1:] {
		for i, column := range lines[0] {
			n, _ := strconv.ParseUint(line[i], 10, 64)
			switch column {
			case "sent":
				sent += n
			case "outcome_acked":
				acked += n
			}
		}
	}
	if last := lines[len(lines)-1]; sent != r.Sent || acked != r.Acked || last[0] != "2" {
		t.Errorf("the table has %d sent and %d acked, the report %d and %d; the last line is of round %s", sent, acked, r.Sent, r.Acked, last[0])
	}
}

// checkLog compares the histograms of the log with the report.
func checkLog(t *testing.T, file string, r *loadtest.Report) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var total int64
	for log := hdrhistogram.NewHistogramLogReader(f); ; {
		h, err := log.NextIntervalHistogram()
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			break
		}
		total += h.TotalCount()
	}
	if uint64(total) != r.Acked {
		t.Errorf("the log has %d messages, %d were acked", total, r.Acked)
	}
}

// TestMetrics asks for metrics after each sample of a run of two rounds. The counters go on over
// both.
func TestMetrics(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	m, err := serveMetrics(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	h := hdrhistogram.New(1000, 1e12, 3)
	h.RecordValue(2e6)
	p := &loadtest.Sample{Point: result.Point{At: 0.1, Sent: 5, Completed: 1, Outcomes: map[string]uint64{"acked": 1}, InFlight: 4, Faults: 2,
		Latency: &result.Latency{P50: 0.002, P99: 0.003}}, Measured: h, Other: hdrhistogram.New(1000, 1e12, 3)}
	m.observe(p, 1)
	wantMetrics(t, addr, `loadtest_messages_total{event="sent"} 5`, `loadtest_outcomes_total{outcome="acked"} 1`, `loadtest_now{what="in_flight"} 4`,
		"loadtest_ledger_faults_total 2\n", `loadtest_latency_seconds{quantile="0.99"} 0.003`, "loadtest_latency_seconds_count 1")
	p.Faults = 1 // the ledger of the second round
	m.observe(p, 2)
	wantMetrics(t, addr, `loadtest_messages_total{event="sent"} 10`, "loadtest_ledger_faults_total 3\n", "loadtest_latency_seconds_count 2")
}

func wantMetrics(t *testing.T, addr string, lines ...string) {
	t.Helper()
	answer, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range lines {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
