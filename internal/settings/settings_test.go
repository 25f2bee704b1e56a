package settings_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"distmsg/internal/settings"
)

// values are the flags of a small program.
type values struct {
	name, url, secretFile string
	loops                 int
	share                 float64
	open                  bool
	hosts                 []string
	wait                  time.Duration
}

func (v *values) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f.SortFlags = false
	f.String("config", "", "")
	f.StringVar(&v.name, "node-name", "n0", "")
	f.StringVar(&v.url, "registry", "", "")
	f.StringVar(&v.secretFile, "cluster-secret-file", "", "")
	f.IntVar(&v.loops, "loops", 2, "")
	f.Float64Var(&v.share, "share", 0.5, "")
	f.BoolVar(&v.open, "open", false, "")
	f.StringSliceVar(&v.hosts, "hosts", []string{"localhost"}, "")
	f.DurationVar(&v.wait, "wait", time.Second, "")
	return f
}

var program = settings.Program{
	Prefix: "TEST_", FileFlag: "config", MayBe0: []string{"registry"},
	Secrets: []settings.Secret{{Variable: "TEST_CLUSTER_SECRET", FileFlag: "cluster-secret-file"}},
}

// load returns what a program would have whose command line is args.
func load(t *testing.T, args, environ []string) (values, *settings.Result, error) {
	t.Helper()
	var unused, v values
	line := unused.flags()
	line.Bool("json", false, "") // a flag of the command, not a setting
	if err := line.Parse(args); err != nil {
		t.Fatal(err)
	}
	result, err := program.Load(v.flags(), line, environ)
	return v, result, err
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const (
	yamlFile = `# of a node
node-name: "007"
loops: 3

hosts: [a, "b"]
wait: 5s
open: true
share: 1
`
	tomlFile = `# of a node
node-name = "007"
loops = 3

hosts = ["a", "b"]
wait = "5s"
open = true
share = 1
`
)

// The command line beats the environment, and the environment beats the file; each value says where
// it comes from.
func TestOrder(t *testing.T) {
	for name, text := range map[string]string{"a.yaml": yamlFile, "a.yml": yamlFile, "a.toml": tomlFile} {
		file := write(t, name, text)
		v, result, err := load(t, []string{"--config", file, "--wait=7s", "--json"}, []string{"TEST_LOOPS=4", "TEST_WAIT=6s", "HOME=/"})
		if err != nil {
			t.Fatal(err)
		}
		if v.name != "007" || v.loops != 4 || v.wait != 7*time.Second || !v.open || v.share != 1 || strings.Join(v.hosts, " ") != "a b" {
			t.Errorf("%s: %+v", name, v)
		}
		var got []string
		for _, s := range result.Values {
			got = append(got, s.Name+"="+s.Text+" "+s.Origin.String())
		}
		want := []string{"config=" + file + " flag", "node-name=007 " + file + ":2", "registry= default", "cluster-secret-file= default",
			"loops=4 TEST_LOOPS", "share=1 " + file + ":8", "open=true " + file + ":7", "hosts=a,b " + file + ":5", "wait=7s flag"}
		if strings.Join(got, "\n") != strings.Join(want, "\n") || len(result.Unknown) != 0 {
			t.Errorf("%s: %q, want %q; unknown: %q", name, got, want, result.Unknown)
		}
	}
}

func TestFileFromEnvironment(t *testing.T) {
	v, _, err := load(t, nil, []string{"TEST_CONFIG=" + write(t, "a.toml", tomlFile)})
	if err != nil || v.loops != 3 {
		t.Errorf("%d loops, %v", v.loops, err)
	}
}

// TestOneOf has flags that exclude each other, in the file and in the environment. Those of the
// strongest source stay, and those of other groups do, too.
func TestOneOf(t *testing.T) {
	p := program
	p.OneOf = [][]string{{"loops", "share", "node-name"}}
	file := write(t, "settings.yaml", "loops: 8\nshare: 0.25\nregistry: redis://a\n")
	for _, c := range []struct {
		line string
		want values
	}{
		{"", values{name: "n0", loops: 8, share: 0.25}},
		{"--node-name=n1", values{name: "n1", loops: 2, share: 0.5}},
		{"--loops=3", values{name: "n0", loops: 3, share: 0.5}},
	} {
		var unused, v values
		line := unused.flags()
		if err := line.Parse(strings.Fields("--config=" + file + " " + c.line)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Load(v.flags(), line, nil); err != nil {
			t.Fatal(err)
		}
		if v.name != c.want.name || v.loops != c.want.loops || v.share != c.want.share || v.url != "redis://a" {
			t.Errorf("%q: %+v", c.line, v)
		}
	}
}

func TestNothingGiven(t *testing.T) {
	for _, args := range [][]string{nil, {"--config", write(t, "a.yaml", "")}, {"--config", write(t, "a.yaml", "# nothing\n---\n")}, {"--config", write(t, "a.toml", "\n")}} {
		v, result, err := load(t, args, nil)
		if err != nil || v.loops != 2 || len(v.hosts) != 1 || len(result.Unknown) != 0 {
			t.Errorf("%q: %+v, %v", args, v, err)
		}
	}
}

// A list replaces the one of a weaker source: they do not add up.
func TestLists(t *testing.T) {
	file := write(t, "a.yaml", "hosts: [a, b]\n")
	for want, from := range map[string]struct{ args, environ []string }{
		"a b":  {nil, nil},
		"c d":  {nil, []string{"TEST_HOSTS=c,d"}},
		"e f":  {[]string{"--hosts=e", "--hosts=f"}, []string{"TEST_HOSTS=c,d"}},
		"g,h ": {[]string{`--hosts="g,h",""`}, nil},
	} {
		v, _, err := load(t, append([]string{"--config", file}, from.args...), from.environ)
		if got := strings.Join(v.hosts, " "); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}

func TestWrongFiles(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"a.yaml", "loops: 3\nlop: 4\n", `a.yaml:2: unknown key "lop": did you mean loops?`},
		{"a.toml", "loops = 3\nnode_name = \"n\"\n", `a.toml:2: unknown key "node_name": did you mean node-name?`},
		{"a.toml", "loops = 3\n[node]\nname = 1\n", `a.toml:2: unknown key "node": the keys are the names of the flags, without --`},
		{"a.yaml", "node-name: 007\n", "a.yaml:1: node-name is the number 7: want text"},
		{"a.yaml", "node-name: 2020-01-01\n", "a.yaml:1: node-name is a date or a time: want text"},
		{"a.yaml", "\nloops: \"3\"\n", "a.yaml:2: loops is text: want a whole number"},
		{"a.yaml", "loops: 1.5\n", "a.yaml:1: loops is the number 1.5: want a whole number"},
		{"a.yaml", "loops: 99999999999999999999\n", "a.yaml:1: loops is the number 1e+20: want a whole number"},
		{"a.toml", "open = \"yes\"\n", "a.toml:1: open is text: want true or false"},
		{"a.yaml", "open: yes\n", "a.yaml:1: open is text: want true or false"},
		{"a.yaml", "wait: 10\n", "a.yaml:1: wait is the number 10: want a duration as text, as in 10s"},
		{"a.toml", "wait = \"10\"\n", `a.toml:1: wait is "10": want a duration, as in 10s or 5m`},
		{"a.yaml", "hosts: [a, 1]\n", "a.yaml:1: element 2 of hosts is the number 1: want text"},
		{"a.yaml", "hosts: []\n", "a.yaml:1: hosts is empty: give it a value"},
		{"a.yaml", "node-name: [a]\n", "a.yaml:1: node-name is a list: want text"},
		{"a.yaml", "node-name: {a: b}\n", "a.yaml:1: node-name is a table: want text"},
		{"a.yaml", "node-name:\n", "a.yaml:1: node-name is without a value: want text"},
		{"a.yaml", "loops: 0\n", "a.yaml:1: loops is 0: give it a value, or leave it out"},
		{"a.yaml", "loops: 1\nwait: 1s\nloops: 2\n", `a.yaml:3: yaml: unmarshal errors: mapping key "loops" already defined at line 1`},
		{"a.toml", "loops = 1\nloops = 2\n", "a.toml:2: toml: "},
		{"a.yaml", "loops: [\n", "a.yaml:"},
		{"a.toml", "loops = 1\nwait = \n", "a.toml:2: toml: "},
		{"a.yaml", "- loops\n", "a.yaml:1: yaml: "},
		{"a.yaml", "loops: 1\n---\nloops: 2\n", "a.yaml: line 2 begins a second document: want one"},
		{"a.yaml", "cluster-secret: hush\n", "a.yaml:1: cluster-secret: a secret does not stand in this file: name a file that holds it as cluster-secret-file, or set TEST_CLUSTER_SECRET"},
		{"a.yaml", "config: b.yaml\n", "a.yaml:1: config: a file cannot name another one"},
		{"a.json", "{}", "a.json: want a name that ends in .yaml, .yml or .toml"},
		{"a.yaml", strings.Repeat("#", 1<<20+1), "a.yaml has more than 1048576 bytes"},
	} {
		_, _, err := load(t, []string{"--config", write(t, tc.name, tc.text)}, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%.40q: %v\nwant %s", tc.text, err, tc.want)
		}
	}
}

// All that is wrong is named at once, and values that are beaten are checked, too.
func TestAllThatIsWrong(t *testing.T) {
	file := write(t, "a.yaml", "lop: 1\nwait: 1s\nopen: 3\n")
	_, _, err := load(t, []string{"--config", file}, nil)
	want := file + ":1: unknown key \"lop\": did you mean loops?\n" + file + ":3: open is the number 3: want true or false"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	file = write(t, "b.yaml", "wait: later\n")
	if _, _, err := load(t, []string{"--config", file, "--wait=1s"}, nil); err == nil || !strings.Contains(err.Error(), `b.yaml:1: wait is "later"`) {
		t.Errorf("%v", err)
	}
	if _, _, err := load(t, []string{"--config", "/nowhere.yaml"}, nil); err == nil || !strings.Contains(err.Error(), "cannot be read: open /nowhere.yaml") {
		t.Errorf("%v", err)
	}
}

func TestEnvironment(t *testing.T) {
	for _, tc := range []struct{ variable, wrong, unknown string }{
		{"TEST_LOOPS=many", `TEST_LOOPS is "many": want a whole number`, ""},
		{"TEST_OPEN=yes", `TEST_OPEN is "yes": want true or false`, ""},
		{"TEST_WAIT=", `TEST_WAIT is "": want a duration`, ""},
		{"TEST_NODE_NAME=", "TEST_NODE_NAME is empty: give it a value, or leave it out", ""},
		{"TEST_CONFIG=", "TEST_CONFIG is empty", ""},
		{"TEST_REGISTRY=", "", ""},
		{"TEST_LOOP=1", "", "TEST_LOOP: did you mean TEST_LOOPS?"},
		{"TEST_CLUSTER_SECRETS=hush", "", "TEST_CLUSTER_SECRETS: did you mean TEST_CLUSTER_SECRET?"},
		{"TEST_PORT_7400_TCP_ADDR=10.0.0.1", "", "TEST_PORT_7400_TCP_ADDR"},
		{"TESTING=1", "", ""},
	} {
		_, result, err := load(t, nil, []string{tc.variable})
		if tc.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), tc.wrong) {
				t.Errorf("%s: %v, want %q", tc.variable, err, tc.wrong)
			}
			continue
		}
		if err != nil || strings.Join(result.Unknown, "\n") != tc.unknown {
			t.Errorf("%s: %v, unknown: %q, want %q", tc.variable, err, result.Unknown, tc.unknown)
		}
	}
}

// An error in the file does not hide one in the environment.
func TestWrongInTwoPlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(file, []byte("lop: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := load(t, []string{"--config=" + file}, []string{"TEST_LOOPS=many"})
	if err == nil || !strings.Contains(err.Error(), `all.yaml:1: unknown key "lop"`) || !strings.Contains(err.Error(), "TEST_LOOPS is") {
		t.Errorf("%v", err)
	}
}

// Later errors about values say where these come from, too.
func TestLocate(t *testing.T) {
	_, r, err := load(t, []string{"--wait=3s"}, []string{"TEST_LOOPS=3", "TEST_NODE_NAME=a"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"--loops 3 is too much for --node-name": "--loops 3 is too much for --node-name (--node-name comes from TEST_NODE_NAME, --loops comes from TEST_LOOPS)",
		"--wait 3s is too long":                 "--wait 3s is too long",
		"--loops-of-others and loops":           "--loops-of-others and loops",
		"--loopsy, --loops":                     "--loopsy, --loops (--loops comes from TEST_LOOPS)",
	} {
		wrong := errors.New(text)
		if got := r.Locate(wrong); got.Error() != want || !errors.Is(got, wrong) {
			t.Errorf("%v, want %s", got, want)
		}
	}
	if err := r.Locate(nil); err != nil {
		t.Error(err)
	}
}

// A secret that is set is listed without its value, and so is a password in a URL.
func TestHidden(t *testing.T) {
	find := func(r *settings.Result, name string) (found settings.Value) {
		for _, v := range r.Values {
			if v.Name == name {
				found = v
			}
		}
		return found
	}
	_, r, err := load(t, nil, []string{"TEST_CLUSTER_SECRET=hush", "TEST_REGISTRY=redis://me:hush@h:1/0"})
	if err != nil {
		t.Fatal(err)
	}
	secret, url := find(r, "cluster-secret"), find(r, "registry")
	if secret.Text != settings.Hidden || secret.Origin.String() != "TEST_CLUSTER_SECRET" || url.Text != "redis://"+settings.Hidden+"@h:1/0" {
		t.Errorf("%+v, %+v", secret, url)
	}
	_, r, err = load(t, []string{"--cluster-secret-file=f"}, []string{"TEST_CLUSTER_SECRET=hush"})
	if secret := find(r, "cluster-secret"); err != nil || secret.Text != settings.Hidden || secret.Origin.String() != "flag" {
		t.Errorf("%+v, %v", secret, err)
	}
	if _, r, err = load(t, nil, []string{"TEST_CLUSTER_SECRET="}); err != nil || find(r, "cluster-secret").Text != "" {
		t.Errorf("an empty secret is listed: %v", err)
	}
}
