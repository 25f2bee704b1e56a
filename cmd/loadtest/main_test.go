package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"distmsg/loadtest"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args string
		want loadtest.ExitCode
	}{
		{"--help", loadtest.ExitOK},
		{"run --help", loadtest.ExitOK},
		{"--conns 4 --warmup 0 --duration 1s", loadtest.ExitOK},
		{"run --conns 4 --warmup 0 --duration 1s --no-ack --window 3", loadtest.ExitOK},
		{"run --conns 4 --warmup 0 --duration 1s --rate 100", loadtest.ExitOK},
		{"run --conns 4 --warmup 0 --duration 1s --fanout 3", loadtest.ExitOK},
		{"run --conns 4 --warmup 0 --duration 200ms --rounds 2 --fail-if missing>0 --fail-if rate<1", loadtest.ExitOK},
		{"run --fail-if p99<1h", loadtest.ExitUsage}, // no such unit
		{"run --conns 4 --warmup 0 --duration 200ms --quiet --fail-if p99>0s", loadtest.ExitThreshold},
		{"run --fail-if speed<1", loadtest.ExitUsage},
		{"run --rounds 0", loadtest.ExitUsage},
		{"run --csv no-such-folder/out.csv", loadtest.ExitUsage},
		{"run --hdr .", loadtest.ExitUsage},
		{"run --html=", loadtest.ExitUsage},
		{"run --html a --json ./a", loadtest.ExitUsage},
		{"soak --out a --json a", loadtest.ExitUsage},
		{"diff a b --html c --json c", loadtest.ExitUsage},
		{"diff a b --html=", loadtest.ExitUsage},
		{"compare --svg a --html a", loadtest.ExitUsage},
		{"--nodes 127.0.0.1:1 --loops 2", loadtest.ExitUsage},
		{"--strategy pair-hash", loadtest.ExitUsage},
		{"run --prometheus nowhere:port", loadtest.ExitUsage},
		{"sweep --of payload", loadtest.ExitUsage},
		{"sweep --of conns --steps 1.5", loadtest.ExitUsage},
		{"sweep --rate 5", loadtest.ExitUsage},
		{"sweep --window 5", loadtest.ExitUsage},
		{"sweep --of window --rate 5", loadtest.ExitUsage},
		{"sweep --of conns --stages 5:1s", loadtest.ExitUsage},
		{"sweep --fail-if speed<1", loadtest.ExitUsage},
		{"sweep --prometheus nowhere:port", loadtest.ExitUsage},
		{"cluster --csv no-such-folder/out.csv", loadtest.ExitUsage},
		{"soak --out soak-is-not-here --hdr .", loadtest.ExitUsage},
		{"soak --report a --json a", loadtest.ExitUsage},
		{"--scenario a.yaml --json a.yaml", loadtest.ExitUsage},
		{"sweep --steps 5 --first 5", loadtest.ExitUsage},
		{"diff main.go", loadtest.ExitUsage},
		{"diff main.go main.go", loadtest.ExitUsage},
		{"run --fanout 0", loadtest.ExitUsage},
		{"--conns 0", loadtest.ExitUsage},
		{"--ids-per-conn 0", loadtest.ExitUsage},
		{"--window 0", loadtest.ExitUsage},
		{"--payload 0", loadtest.ExitUsage},
		{"--duration 0", loadtest.ExitUsage},
		{"--loops 0", loadtest.ExitUsage},
		{"--attach 0 --driver sdk", loadtest.ExitUsage},
		{"--warmup -1s", loadtest.ExitUsage},
		{"--nodes=", loadtest.ExitUsage},
		{"--driver=", loadtest.ExitUsage},
		{"--strategy=", loadtest.ExitUsage},
		{"--json=", loadtest.ExitUsage},
		{"--json no-such-folder/out.json", loadtest.ExitUsage},
		{"--json .", loadtest.ExitUsage},
		{"--conns 4 --fanout 4", loadtest.ExitUsage},
		{"--fanout -1", loadtest.ExitUsage},
		{"--fanout 2 --driver nats --nodes a:1", loadtest.ExitUsage},
		{"--fanout 2 --conns 4 --no-ack --driver redis --nodes a:1", loadtest.ExitUsage},
		{"--fanout 2 --cross 1 --nodes a:1,b:1", loadtest.ExitUsage},
		{"--conns 2 --ids-per-conn 20000 --fanout 10001", loadtest.ExitFailure},
		{"--conns 2 --ids-per-conn 10000 --payload 1000000 --fanout 10000", loadtest.ExitFailure},
		{"--nodes 127.0.0.1:1", loadtest.ExitFailure},
		{"--server-pid 999999999", loadtest.ExitFailure},
		{"--rate 100 --window 5", loadtest.ExitUsage},
		{"--payload 35", loadtest.ExitUsage},
		{"--driver nats", loadtest.ExitUsage},
		{"--conns many", loadtest.ExitUsage},
		{"--nodes a:1 --discovery zk://b", loadtest.ExitUsage},
		{"--discovery http://b", loadtest.ExitUsage},
		{"--discovery zk://user:password@b", loadtest.ExitUsage},
		{"--discovery=", loadtest.ExitUsage},
		{"--discovery dns://name:0", loadtest.ExitUsage},
		{"--discovery dns://name:7400/path", loadtest.ExitUsage},
		{"--discovery dns://name:7400 --discovery-auth-file f", loadtest.ExitUsage},
		{"--tls", loadtest.ExitUsage}, // the node in this process has no certificate
		{"--nodes a:1 --tls-ca f", loadtest.ExitUsage},
		{"--nodes a:1 --tls --tls-ca no-such-file", loadtest.ExitUsage},
		{"--nodes a:1 --tls --tls-cert f", loadtest.ExitUsage},
		{"--nodes a:1 --tls --tls-insecure-skip-verify --tls-server-name x", loadtest.ExitUsage},
		{"--nodes 127.0.0.1:1 --tls --tls-insecure-skip-verify", loadtest.ExitFailure},
		{"--credentials-file main.go", loadtest.ExitUsage}, // no node to log in to
		{"--nodes a:1 --credentials-file=", loadtest.ExitUsage},
		{"--nodes a:1 --credentials-file no-such-file", loadtest.ExitUsage},
		{"--nodes a:1 --credentials-file main_test.go", loadtest.ExitUsage}, // too long
		{"--nodes a:1 --driver nats --credentials-file outfile.go", loadtest.ExitUsage},
		{"--discovery-auth-file f", loadtest.ExitUsage},
		{"--discovery zk://b --discovery-auth-file no-such-file", loadtest.ExitUsage},
		{"--discovery zk://127.0.0.1:1/distmsg", loadtest.ExitFailure},
		{"--cross 0.5", loadtest.ExitUsage},
		{"--cross 2 --nodes a:1,b:1", loadtest.ExitUsage},
		{"--attach 2", loadtest.ExitUsage},
		{"--driver sdk --attach -2", loadtest.ExitUsage},
		{"--driver sdk --strategy nearest", loadtest.ExitUsage},
		{"--no-such-flag", loadtest.ExitUsage},
		{"walk", loadtest.ExitUsage},
		{"run walk", loadtest.ExitUsage},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(strings.Fields(c.args), &stdout, &stderr); got != c.want {
			t.Errorf("loadtest %s: exit code %d, want %d\n%s", c.args, got, c.want, &stderr)
		}
		if why := stderr.String(); c.want != loadtest.ExitOK && (strings.Count(why, "\n") != 1 || !strings.HasPrefix(why, "loadtest: ")) {
			t.Errorf("loadtest %s says why in more or less than a line: %q", c.args, why)
		}
		if c.want == loadtest.ExitOK && stdout.Len() == 0 {
			t.Errorf("loadtest %s says nothing", c.args)
		}
	}
}

func TestJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--conns", "4", "--warmup", "0", "--duration", "1s", "--json", file}, &stdout, &stderr); code != loadtest.ExitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report loadtest.Report
	if err := json.Unmarshal(data, &report); err != nil || report.Acked == 0 || report.Config.Conns != 4 {
		t.Errorf("%v: %s", err, data)
	}
}

// TestNoReportNoFile leaves no empty file behind where a run could not be made, and touches no old
// one.
func TestNoReportNoFile(t *testing.T) {
	fresh, old := filepath.Join(t.TempDir(), "out.json"), filepath.Join(t.TempDir(), "old.json")
	if err := os.WriteFile(old, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{fresh, old} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"--nodes", "127.0.0.1:1", "--json", file}, &stdout, &stderr); code != loadtest.ExitFailure {
			t.Errorf("exit code %d: %s", code, &stderr)
		}
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("%s: %v", fresh, err)
	}
	if data, err := os.ReadFile(old); err != nil || string(data) != "{}" {
		t.Errorf("%s: %q, %v", old, data, err)
	}
}

// TestInterrupt ends a process with a signal, once it has begun, and wants its partial report.
func TestInterrupt(t *testing.T) {
	p := start(t, "--conns 4 --duration 1h")
	p.line() // of progress
	p.signal(os.Interrupt)
	if code, why := p.wait(); code != loadtest.ExitInterrupted {
		t.Errorf("exit code %d, want %d: %s\n%s", code, loadtest.ExitInterrupted, why, &p.stdout)
	}
	if out := p.stdout.String(); !strings.Contains(out, "interrupted") || !strings.Contains(out, "ledger") {
		t.Errorf("the report:\n%s", out)
	}
}

// TestHangup ends the terminal of a run. Its report is written, although nobody sees the output any
// more, and although the signal comes twice.
func TestHangup(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("the tests run under nohup, and so would the program")
	}
	file := filepath.Join(t.TempDir(), "out.json")
	p := start(t, "--conns 4 --duration 1h --json "+file)
	p.line()
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGHUP)
	if code, why := p.wait(); code != loadtest.ExitInterrupted {
		t.Errorf("exit code %d, want %d: %s\n%s", code, loadtest.ExitInterrupted, why, &p.stdout)
	}
	if r, err := readReport(file); err != nil || !r.Partial || r.Sent == 0 {
		t.Errorf("%v: %+v", err, r)
	}
}

// What is wrong with the configuration is said of the flags, as they are typed.
func TestErrorsNameFlags(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(strings.Fields("--payload 35 --conns 4 --fanout 4 --driver nats"), &out, &errs)
	want := []string{"--payload is 35 bytes, want ", "--fanout is 4, but the other connections have 3 IDs", "--driver nats needs the address"}
	for _, w := range want {
		if !strings.Contains(errs.String(), w) {
			t.Errorf("code %d, no %q in %q", code, w, errs.String())
		}
	}
	if code != loadtest.ExitUsage || strings.Contains(errs.String(), "bad configuration") || strings.Count(errs.String(), "\n") != 1 {
		t.Errorf("code %d, %q", code, errs.String())
	}
}
