package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/pflag"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// TestScenario reads a file with values for flags. The command line wins.
func TestScenario(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "evening.yaml"), filepath.Join(dir, "out.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("conns: 5\nids-per-conn: 2\nstages: 200:1s\narrivals: poisson\npayloads: 64:9,512:1\noffline: 0.1\nwarmup: 0s\nduration: 1h\n" +
		"fail-if: [faults>0, unexpected_no_route>0]\n")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--scenario", file, "--duration", "500ms", "--conns", "4", "--json", out, "--quiet"}, &stdout, &stderr); code != loadtest.ExitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	r, err := readReport(out)
	if err != nil {
		t.Fatal(err)
	}
	if c := &r.Config; c.Conns != 4 || c.IDsPerConn != 2 || c.Stages != "200:1s" || c.Arrivals != "poisson" || c.Payloads != "64:9,512:1" || len(r.Thresholds) != 2 {
		t.Errorf("%+v, thresholds %v", c, r.Thresholds)
	}

	for text, says := range map[string]string{
		"cons: 5\n":                     `unknown key "cons"`,
		"conns: many\n":                 "evening.yaml:1",
		"\nstages: fast\n":              "evening.yaml:2",
		"\n\nfail-if: p98>1ms\n":        "evening.yaml:3",
		"duration: -1s\n":               "evening.yaml:1",
		"scenario: other\n":             "a file cannot name another one",
		"\nfaults: 1s drain 1\n":        `evening.yaml:2: key "faults": this command has no such flag, only these have: cluster`,
		"steps: [5]\n":                  "only these have: sweep",
		"offline: 2\n":                  "--offline is 2",
		"arrivals: sometimes":           "--arrivals",
		"churn-moves: 1\ndriver: sdk\n": "--churn-moves needs driver relay",
	} {
		write(text)
		stderr.Reset()
		if code := run([]string{"--scenario", file}, &stdout, &stderr); code != loadtest.ExitUsage || !strings.Contains(stderr.String(), says) {
			t.Errorf("%q: exit code %d, %q, want %q", text, code, &stderr, says)
		}
	}
	write("rate: 5\npayloads: 64:1\nnodes: a:1\n")
	stderr.Reset()
	run([]string{"--scenario", file, "--window", "2", "--payload", "100", "--discovery", "http://a"}, &stdout, &stderr)
	if text := stderr.String(); strings.Contains(text, "exclude") || !strings.Contains(text, "http://a") {
		t.Errorf("flags on the command line do not take the place of those that exclude them: %q", text)
	}
	write("conns: 4\nstages: 200:1s\narrivals: poisson\nack-delay: 1ms\nwarmup: 0s\nduration: 100ms\n")
	stderr.Reset()
	if code := run([]string{"--scenario", file, "--window", "2", "--no-ack", "--quiet"}, &stdout, &stderr); code != loadtest.ExitOK {
		t.Errorf("a closed loop without acks in place of what the scenario says: exit code %d, %s", code, &stderr)
	}
	if code := run([]string{"--scenario", file + "-missing"}, &stdout, &stderr); code != loadtest.ExitUsage {
		t.Errorf("without the file: exit code %d", code)
	}
}

// commandLine returns the flags of a command, and those as args set them.
func commandLine(t *testing.T, c scenarioCommand, args ...string) (into, line *pflag.FlagSet) {
	t.Helper()
	into, line = pflag.NewFlagSet(c.name, pflag.ContinueOnError), pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	c.fresh().addTo(into)
	c.fresh().addTo(line)
	if err := line.Parse(args); err != nil {
		t.Fatalf("%s %v: %v", c.name, args, err)
	}
	return into, line
}

// samples returns a value for a flag as it is typed, and as it stands in a scenario.
func samples(t *testing.T, f *pflag.Flag) (typed, written string) {
	t.Helper()
	switch kind := f.Value.Type(); kind {
	case "bool":
		return "true", "true"
	case "int", "uint64":
		return "7", "7"
	case "float64":
		return "0.5", "0.5"
	case "float64Slice":
		return "10,20.5", "[10, 20.5]"
	case "duration":
		return "3s", "3s"
	case "string":
		return "some", "some"
	case "stringSlice":
		return "a:1,b:2", "[\"a:1\", \"b:2\"]"
	case "stringArray":
		return "some", "[some]"
	default:
		t.Fatalf("--%s has the type %s, of which this test knows no value", f.Name, kind)
		return "", ""
	}
}

// TestScenarioSaysAll gives each flag of each command its value in a file, and on the command line.
// It is the same. What a command line can say, a scenario can say.
func TestScenarioSaysAll(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	for _, c := range scenarioCommands() {
		names, _ := commandLine(t, c)
		names.VisitAll(func(f *pflag.Flag) {
			if f.Name == "scenario" {
				return
			}
			typed, written := samples(t, f)
			if err := os.WriteFile(file, []byte(f.Name+": "+written+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			into, line := commandLine(t, c, "--scenario", file)
			_, want := commandLine(t, c, "--"+f.Name+"="+typed)
			if _, err := resolve(into, line); err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if got, want := into.Lookup(f.Name).Value.String(), want.Lookup(f.Name).Value.String(); got != want || !into.Changed(f.Name) {
				t.Errorf("%s: %s is %s in the scenario, %s on the command line", c.name, f.Name, got, want)
			}
		})
	}
}

// TestConfigHasFlags wants a flag for each value of a load, besides those that programs set.
func TestConfigHasFlags(t *testing.T) {
	flags, _ := commandLine(t, scenarioCommands()[0])
	named := map[string]string{"Membership": "discovery", "IDsPerConn": "ids-per-conn", "Poisson": "arrivals"}
	ofPrograms := []string{"Until", "Ready", "Started", "Divide", "Observe", "Progress", "MoreServerPIDs", "Grace", "Patience"}
	var check func(prefix string, c reflect.Type)
	check = func(prefix string, c reflect.Type) {
		for i := range c.NumField() {
			field := c.Field(i)
			name := named[field.Name]
			if name == "" {
				name = prefix + kebab(field.Name)
			}
			switch {
			case slices.Contains(ofPrograms, field.Name):
			case field.Type == reflect.TypeFor[loadtest.Churn]():
				check("churn-", field.Type)
			case flags.Lookup(name) == nil:
				t.Errorf("no flag --%s for Config.%s", name, field.Name)
			}
		}
	}
	check("", reflect.TypeFor[loadtest.Config]())
}

// kebab turns CredentialsFile into credentials-file, and ServerPID into server-pid.
func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) && unicode.IsLower(rune(name[i-1])) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// TestFlagsReplace gives flags on the command line that exclude each one of the scenario.
func TestFlagsReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	for _, group := range excluding() {
		for _, c := range scenarioCommands() {
			all, _ := commandLine(t, c)
			for _, weak := range group {
				for _, strong := range group {
					if weak == strong || all.Lookup(weak) == nil || all.Lookup(strong) == nil {
						continue
					}
					_, written := samples(t, all.Lookup(weak))
					typed, _ := samples(t, all.Lookup(strong))
					if err := os.WriteFile(file, []byte(weak+": "+written+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
					into, line := commandLine(t, c, "--scenario", file, "--"+strong+"="+typed)
					if _, err := resolve(into, line); err != nil || into.Changed(weak) || !into.Changed(strong) {
						t.Errorf("%s --%s with %s in the scenario: %v", c.name, strong, weak, err)
					}
				}
			}
		}
	}
}

// TestSweepOfAScenario sweeps a load that a scenario for a run describes.
func TestSweepOfAScenario(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "evening.yaml"), filepath.Join(dir, "out.json")
	text := "conns: 4\nstages: 200:1s\narrivals: poisson\noffline: 0.1\nwarmup: 0s\nduration: 300ms\nfail-if: [faults>0]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"sweep", "--scenario", file, "--steps", "50", "--json", out}, &stdout, &stderr); code != loadtest.ExitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if want := "the sweep of rate takes the place of what the scenario says: stages"; !strings.Contains(stderr.String(), want) {
		t.Errorf("it does not say %q: %s", want, &stderr)
	}
	s, err := readResult[result.Sweep](out, "sweep", result.SchemaSweep)
	if err != nil || s.Config.Stages != "" || s.Config.Rate != 50 || s.Config.Arrivals != "poisson" || s.Config.Offline != 0.1 || len(s.Limits.FailIf) != 1 {
		t.Errorf("%v: %+v", err, s)
	}
}
