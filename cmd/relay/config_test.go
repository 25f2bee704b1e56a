package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"

	"distmsg/codec"
	"distmsg/internal/cli"
	"distmsg/internal/settings"
)

// writeConfig writes a file with settings.
func writeConfig(t *testing.T, text string) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Variables of flags and of secrets differ, each secret has its flag, and what load takes from the
// command line is what was given there.
func TestFlagsAsSettings(t *testing.T) {
	var o options
	flags := pflag.NewFlagSet("relay", pflag.ContinueOnError)
	o.addFlags(flags)
	p := program()
	owners := make(map[string]string)
	for _, s := range p.Secrets {
		owners[s.Variable] = "a secret"
		if flags.Lookup(s.FileFlag) == nil {
			t.Errorf("%s: there is no flag --%s", s.Variable, s.FileFlag)
		}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if owner := owners[p.Variable(f.Name)]; owner != "" {
			t.Errorf("%s is of --%s and of %s", p.Variable(f.Name), f.Name, owner)
		}
		owners[p.Variable(f.Name)] = "--" + f.Name
		if _, isList := f.Value.(pflag.SliceValue); isList || f.Value.String() == "" {
			return
		}
		before := f.Value.String()
		if err := f.Value.Set(before); err != nil || f.Value.String() != before {
			t.Errorf("--%s: its own text %q makes it %q, %v", f.Name, before, f.Value, err)
		}
	})
}

func TestConfigShow(t *testing.T) {
	secret := writeFile(t, "a password that nobody may see")
	file := writeConfig(t, "log-level: warn\nloops: 3\nregistry: redis://h:1/0\nregistry-password-file: "+secret+"\n")
	env := []string{"DISTMSG_LOOPS=4", envSecret + "=hush hush hush hush", "DISTMSG_CONFIG=" + file}
	show := func(args ...string) (out string) {
		cmd := command(t, env, append([]string{"config", "show", "--node-id=n1"}, args...)...)
		text, err := cmd.CombinedOutput()
		if code := exitCode(t, err); code != cli.ExitOK || strings.Contains(string(text), "hush") || strings.Contains(string(text), "nobody may see") {
			t.Errorf("exit code %d: %s", code, text)
		}
		return string(text)
	}
	table := show()
	for _, line := range []string{
		`config +` + regexp.QuoteMeta(file) + ` +DISTMSG_CONFIG`,
		`log-level +warn +` + regexp.QuoteMeta(file) + `:1`,
		`loops +4 +DISTMSG_LOOPS`,
		`node-id +n1 +flag`,
		`listen +127\.0\.0\.1:7400 +default`,
		`advertise +- +default`,
		`cluster-secret +\*+ +DISTMSG_CLUSTER_SECRET`,
		`registry-password +\*+ +` + regexp.QuoteMeta(file) + `:4`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(table) {
			t.Errorf("no line is %s in\n%s", line, table)
		}
	}
	var values []settings.Value
	if err := json.Unmarshal([]byte(show("--json")), &values); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, v := range values {
		found = found || v == settings.Value{Name: "log-level", Text: "warn", Origin: settings.Origin{Source: settings.File, File: file, Line: 1}}
	}
	if !found {
		t.Errorf("%+v", values)
	}
}

func TestConfigCheck(t *testing.T) {
	empty := writeFile(t, "")
	for _, tc := range []struct {
		text string
		args []string
		code int
		line string // of stdout or stderr
	}{
		{"", nil, cli.ExitOK, ": ok"},
		{"log-level: debug\nadmin-host: [a, b]\nmemory-budget: 1GiB\n", nil, cli.ExitOK, ": ok"},
		{"proxy-protocol-from: [10.0.0.0/8, 10.0.0.5, \"2001:db8::/32\", \"::1\"]\n", nil, cli.ExitOK, ": ok"},
		{"proxy-protocol-from: balancer\n", nil, cli.ExitUsage, `--proxy-protocol-from: "balancer" is not a network`},
		{"proxy-protocol-from: 10.0.0.0/33\n", nil, cli.ExitUsage, `--proxy-protocol-from: "10.0.0.0/33" is not a network`},
		{"auth-anonymous: true\nauth-token-file: t\nproxy-protocol-from: [10.0.0.5, 127.0.0.1]\n", nil, cli.ExitUsage, "--auth-anonymous would let in"},
		{"auth-anonymous: true\nauth-token-file: t\nproxy-protocol-from: \"::/0\"\n", nil, cli.ExitUsage, "--auth-anonymous would let in"},
		{"auth-anonymous: true\nauth-token-file: " + writeFile(t, "# none\n") + "\nproxy-protocol-from: 10.0.0.5\n", nil, cli.ExitOK, ": ok"},
		{"lop: 3\n", nil, cli.ExitUsage, `relay.yaml:1: unknown key "lop": did you mean loops?`},
		{"memory-budget: 1GB\n", nil, cli.ExitUsage, `relay.yaml:1: memory-budget is "1GB": want a number of bytes`},
		{"drain-timeout: -1s\n", nil, cli.ExitUsage, "--drain-timeout -1s must be over 0 (--drain-timeout comes from "},
		{"log-level: loud\n", nil, cli.ExitUsage, "relay.yaml:1)"},
		{"listen: 0.0.0.0:7400\n", nil, cli.ExitUsage, "--insecure-listen"},
		{"listen: 0.0.0.0:7400\n", []string{"--insecure-listen"}, cli.ExitOK, ": ok"},
		{"cluster-secret-file: " + empty + "\n", nil, cli.ExitUsage, "is empty"},
		{"", []string{"--config=other.yaml"}, cli.ExitUsage, "leave out --config"},
	} {
		code, stdout, stderr := run(t, append([]string{"config", "check", writeConfig(t, tc.text)}, tc.args...)...)
		if code != tc.code || !strings.Contains(stdout+stderr, tc.line) || (code == cli.ExitOK) != (stderr == "") {
			t.Errorf("%q: exit code %d, %q, %q; want %d and %q", tc.text, code, stdout, stderr, tc.code, tc.line)
		}
	}
	for _, args := range [][]string{{"config"}, {"config", "check"}, {"config", "nope"}, {"config", "show", "nope"}, {"config", "check", "/nowhere.yaml"}} {
		if code, stdout, stderr := run(t, args...); code != cli.ExitUsage || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

// The file in the documents is one that a node accepts, once the files with its secrets exist.
func TestDocumentedFile(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, _, found := strings.Cut(text, "```\n")
	if !found || strings.Count(text, "/etc/distmsg/") != 3 {
		t.Fatalf("it is not there, or its secrets are not: %s", text)
	}
	secret := writeFile(t, "0123456789abcdef")
	for _, name := range []string{"/etc/distmsg/secret", "/etc/distmsg/redis-password"} {
		text = strings.Replace(text, name, secret, 1)
	}
	if code, _, stderr := run(t, "config", "check", writeConfig(t, text)); code != cli.ExitOK {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// A client behind a load balancer gets in, and one that says nothing about its balancer does not.
func TestProxyProtocol(t *testing.T) {
	p := start(t, nil, "--proxy-protocol-from=10.0.0.0/8,127.0.0.1")
	clients, _ := p.addresses()
	c := dial(t, clients)
	c.write([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\x0a\x00\x00\x01\xc3\x50\x1c\xe8"))
	c.hello()
	plain := dial(t, clients)
	plain.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	if in, _ := io.ReadAll(plain.in); len(in) > 0 {
		t.Errorf("it reads %q", in)
	}
	p.waitFor(`level=WARN msg="a load balancer sent no PROXY protocol header of version 2" remote=127\.0\.0\.1:`)
}

// A node takes what a file says, warns of variables that it does not know, and reloads the file.
func TestReloadFile(t *testing.T) {
	file := writeConfig(t, "log-level: warn\nnode-id: n1\n")
	change := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, []string{"DISTMSG_CONFIG=" + file, "DISTMSG_LOPS=1"})
	p.waitFor(`level=WARN.*variable="DISTMSG_LOPS: did you mean DISTMSG_LOOPS\?"`)
	p.signal(syscall.SIGHUP) // before it serves, it waits
	change("log-level: info\nnode-id: n1\nloops: many\n")
	p.signal(syscall.SIGHUP)
	p.waitFor(`level=ERROR msg="reload failed, nothing has changed" error=".*relay.yaml:3: loops is text: want a whole number"`)
	change("log-level: info\nnode-id: n1\ndrain-timeout: -1s\n")
	p.signal(syscall.SIGHUP)
	p.waitFor(`level=ERROR msg="reload failed, nothing has changed" error="--drain-timeout`)
	change("log-level: nfo\nnode-id: n1\n")
	p.signal(syscall.SIGHUP)
	p.waitFor(`error="--log-level \\"nfo\\" is not debug, info, warn or error \(--log-level comes from .*relay.yaml:1\)"`)
	change("log-level: debug\nnode-id: n2\n")
	p.signal(syscall.SIGHUP)
	p.waitFor(`level=INFO msg=reloaded changed=\[--log-level\]`)
	p.waitFor(`level=WARN msg="a new value needs a restart" flag=--node-id running=n1 new=n2 from=` + regexp.QuoteMeta(file) + `:2`)
	p.signal(syscall.SIGHUP)
	p.waitFor(`level=INFO msg=reloaded changed=\[\]`)
	p.waitFor(`needs a restart" flag=--node-id`) // until there is one
	p.signal(syscall.SIGTERM)
	if code, log := p.exit(); code != cli.ExitOK {
		t.Errorf("exit code %d: %s", code, log)
	}
}
