package soak

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// record makes a soak of a few seconds.
func record(t *testing.T, cfg Config) (file string) {
	t.Helper()
	cfg.Out, cfg.Every, cfg.MaxShare = filepath.Join(t.TempDir(), "soak.jsonl"), time.Second, 0.05
	r, err := NewRecorder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	report, err := loadtest.Run(t.Context(), loadtest.Config{Conns: 4, Warmup: -1, Duration: 2500 * time.Millisecond, Ready: r.Begin, Observe: r.Observe})
	if err != nil {
		t.Fatal(err)
	}
	r.End(report)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg.Out
}

func read(t *testing.T, file string) (*result.Soak, []byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read(bytes.NewReader(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, data
}

// TestSoak makes a soak and reads its file: all of it, and what is left if the tool is killed.
func TestSoak(t *testing.T) {
	t.Parallel()
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("# TYPE go_goroutines gauge\ngo_goroutines 17\n# TYPE process_open_fds gauge\nprocess_open_fds 1e6\n"))
	}))
	defer metrics.Close()
	s, data := read(t, record(t, Config{ServerPID: os.Getpid(), Metrics: metrics.URL}))
	if len(s.Samples) == 0 || s.End == nil || s.Cut || s.End.Timeline != nil || !s.Config.InProcess || s.Machine.Cores == 0 || s.Begun.IsZero() {
		t.Fatalf("%s", data)
	}
	var sent uint64
	for i := range s.Samples {
		sample := &s.Samples[i]
		sent += sample.Sent
		if sample.Others == nil {
			t.Error("nothing is known of the other processes")
		}
		if u := sample.Server; sample.ServerError != "" || u == nil || *u.Goroutines != 17 || *u.RSS == 0 || *u.FDs == 0 || *u.FDs >= 1e6 || *sample.Tool.Goroutines == 0 {
			t.Errorf("sample %+v: %+v", sample, u)
		}
	}
	if sent != s.End.Sent {
		t.Errorf("%d messages in the samples, %d in the report", sent, s.End.Sent)
	}
	if code, why := s.Verdict(); code != result.ExitOK || len(s.Trends) != 9 || !strings.Contains(s.Summary(), "nobody can tell of 9 of 9") {
		t.Errorf("exit code %d, %q, %q, %+v", code, why, s.Summary(), s.Trends)
	}

	for _, end := range cuts(data) {
		half, err := Read(bytes.NewReader(data[:end]), nil)
		if hasHeader := bytes.IndexByte(data[:end], '\n') >= 0; hasHeader != (err == nil) {
			t.Fatalf("the first %d bytes: %v", end, err)
		}
		if err != nil {
			continue
		}
		if code, why := half.Verdict(); code != result.ExitFailure || half.End != nil || half.Cut != (data[end-1] != '\n') || !strings.Contains(why, "was killed") {
			t.Fatalf("the first %d bytes: exit code %d, %q, cut %t", end, code, why, half.Cut)
		}
	}
}

// cuts returns where a crash may end the file: at the ends of its lines but the last, and around
// and between them.
func cuts(data []byte) []int {
	ends := []int{0, len(data) - 1}
	at := 0
	for line := range bytes.Lines(data) {
		ends = append(ends, at+1, at+len(line)/2, at+len(line)-1)
		if at += len(line); at < len(data) {
			ends = append(ends, at)
		}
	}
	return ends
}

// TestRefusals gives it files that it must not write, or cannot read.
func TestRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "soak.jsonl")
	r, err := NewRecorder(Config{Out: file, Every: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRecorder(Config{Out: file, Every: time.Second}); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a second soak with one file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := loadtest.Run(ctx, loadtest.Config{Ready: r.Begin, Observe: r.Observe}); err == nil {
		t.Error("a run that was interrupted has begun")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a run that has not begun leaves a file: %v", err)
	}
	for _, text := range []string{"", "{}\n", "\n", "{\"sample\":{}}\n", "{\"header\":{\"schema\":\"distmsg-loadtest/1\"}}\n",
		"{\"header\":{\"schema\":\"" + result.SchemaSoak + "\"}}\nx\n"} {
		if _, err := Read(strings.NewReader(text), nil); err == nil {
			t.Errorf("%q is read as a soak", text)
		}
	}
}

// TestServerGone measures a server that is not there.
func TestServerGone(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	defer gone.Close()
	p := newProbe(&Config{ServerPID: 1 << 30, Metrics: gone.URL})
	var s result.SoakSample
	p.measure(&s)
	if s.Server != nil || !strings.Contains(s.ServerError, "404") || !strings.Contains(s.ServerError, "/proc/1073741824") || s.Tool.RSS == nil {
		t.Errorf("%+v", s)
	}
}

// TestVerdict judges series that are written by hand: which verdict wins, and what it says.
func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*result.Soak)
		code   result.ExitCode
		says   string
	}{
		"clean": {func(*result.Soak) {}, result.ExitOK, "The ledger is clean, and nothing of the system grows."},
		"leak":  {leak, result.ExitThreshold, "It grows: the server's memory by +120.0 MiB an hour."},
		"own leak": {func(s *result.Soak) {
			for i := range s.Samples {
				s.Samples[i].Server.FDs = nil
				s.Samples[i].Tool.FDs = new(uint64(i))
			}
		}, result.ExitOK, "nothing of the system grows; not counted, as it is the load test itself: the load test's open files by +120 an hour."},
		"killed":     {func(s *result.Soak) { s.End, s.Cut = nil, true }, result.ExitFailure, "is still running; its last line is cut off."},
		"leak, then": {func(s *result.Soak) { leak(s); s.End = nil }, result.ExitThreshold, "an hour; ended without a last line: the tool was killed"},
		"fault":      {func(s *result.Soak) { leak(s); s.End.Faults.Missing = 2 }, result.ExitLedger, "The ledger has faults: missing 2."},
		"fault until then": {func(s *result.Soak) { s.End, s.Samples[len(s.Samples)-1].Faults = nil, 3 }, result.ExitLedger,
			"The ledger has faults: 3 until the last line; ended without"},
		"threshold": {func(s *result.Soak) {
			leak(s)
			s.End.Thresholds = []result.Threshold{{FailIf: "p99>2ms", Missed: true, Found: "p99 is 4ms"}}
		}, result.ExitThreshold, "MiB an hour; thresholds missed: p99>2ms (p99 is 4ms)."},
		"interrupted": {func(s *result.Soak) { s.End.Partial = true }, result.ExitInterrupted, "Interrupted; the report covers"},
	} {
		s := &result.Soak{SoakHeader: result.SoakHeader{Schema: result.SchemaSoak, MaxShare: 0.05}, End: &result.Report{Rate: new(100.0)}}
		for i := range 60 {
			sample := result.SoakSample{Server: &result.Usage{RSS: new(uint64(100 * mib)), FDs: new(uint64(50))}}
			sample.At, sample.Length, sample.Phase = result.Seconds(i*30), 30, result.Measuring
			s.Samples = append(s.Samples, sample)
		}
		c.change(s)
		Judge(s)
		if code, why := s.Verdict(); code != c.code || !strings.Contains(s.Summary(), c.says) || len(s.Trends) != 2 {
			t.Errorf("%s: exit code %d, %q, %q, %+v", name, code, why, s.Summary(), s.Trends)
		}
		var text bytes.Buffer
		if err := s.WriteText(&text); err != nil || !strings.Contains(text.String(), "open files") || !strings.Contains(text.String(), c.says) {
			t.Errorf("%s: %v\n%s", name, err, &text)
		}
	}
}

// TestOtherProcesses has latency that grows. If the other processes of the machine used more and
// more CPU meanwhile, nobody can tell why.
func TestOtherProcesses(t *testing.T) {
	for name, c := range map[string]struct {
		cpus float64 // that others use more, each interval
		pid  int     // of the server; 0: it may be one of the others
		want string
	}{"as busy as before": {0, 1, "GROWS"}, "busier": {0.01, 1, "cannot tell"}, "or the server is": {0.01, 0, "GROWS"}} {
		s := &result.Soak{SoakHeader: result.SoakHeader{MaxShare: 0.05}}
		s.Config.ServerPID = c.pid
		var others float64
		for i := range 60 {
			others += 30 * (0.2 + float64(i)*c.cpus)
			sample := result.SoakSample{Others: new(result.Seconds(others))}
			sample.At, sample.Length, sample.Phase = result.Seconds(i*30), 30, result.Measuring
			grown := result.Seconds(0.001 * float64(1+i))
			sample.Latency = &result.Latency{P50: grown, P99: grown, P999: grown}
			s.Samples = append(s.Samples, sample)
		}
		Judge(s)
		for _, trend := range s.Trends {
			if trend.Verdict != c.want || trend.Grows != (c.want == "GROWS") {
				t.Errorf("%s: %+v, want %s", name, trend, c.want)
			}
		}
		if len(s.Trends) != 3 {
			t.Errorf("%s: %+v", name, s.Trends)
		}
	}
}

// leak makes the memory of the server grow by a MiB every 30 s.
func leak(s *result.Soak) {
	for i := range s.Samples {
		*s.Samples[i].Server.RSS += uint64(i * mib)
	}
}
