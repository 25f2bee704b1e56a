package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"distmsg/client"
	"distmsg/engine"
	"distmsg/internal/cli"
)

// recordCommands makes TestOperate write docs/commands.md in place of comparing it.
var recordCommands = flag.Bool("record", false, "run the commands of docs/commands.md under load, and write what they print into it")

const (
	commandsDoc = "../../docs/commands.md"
	// shownLines is how many lines of one command's output the document has.
	shownLines = 14
)

var (
	sessionID = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	tokenText = regexp.MustCompile(`dmt_[\w.-]+`)
	figure    = regexp.MustCompile(`\S*[0-9]\S*`) // also names of nodes, which move
)

// shown is a command in the document, and what it printed there.
type shown struct {
	command string
	output  []string
}

// code returns the exit code that the document names.
func (s shown) code() (code int) {
	if n := len(s.output); n > 0 {
		_, _ = fmt.Sscanf(s.output[n-1], "(exit code %d)", &code)
	}
	return code
}

// shapes returns the lines that must come again: the headers of tables, or else the first line,
// without the words that have figures. An error is compared by its exit code: as long as a Redis is
// new, the reasons of some are others.
func shapes(lines []string) (all []string) {
	for _, line := range lines {
		if columns := strings.Fields(line); len(columns) > 1 && strings.ToUpper(line) == line && !figure.MatchString(line) {
			all = append(all, strings.Join(columns, " "))
		}
	}
	if len(all) == 0 && len(lines) > 0 && !strings.HasPrefix(lines[0], "relay: ") {
		all = append(all, strings.Join(strings.Fields(figure.ReplaceAllString(lines[0], "#")), " "))
	}
	return all
}

// commandBook is the document while its commands run, in a directory that has the files which the
// document shows.
type commandBook struct {
	*operator
	sessions map[string]*client.Session // of the IDs alice, bob and carol
	kill     func()                     // kills node n3
	names    map[string]bool            // of the commands that the document runs
	log      []string                   // of the record: the document with its new outputs
}

// document runs each command of the document in its order.
func (o *operator) document(t *testing.T, sessions map[string]*client.Session, kill func()) {
	text, err := os.ReadFile(commandsDoc)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := filepath.Abs(commandsDoc)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	t.Setenv("DISTMSG_ADMIN_LISTEN", strings.TrimPrefix(o.admin, "http://")) // for healthcheck
	b := &commandBook{operator: &operator{t, o.admin}, sessions: sessions, kill: kill, names: make(map[string]bool)}
	b.walk(strings.Split(string(text), "\n"))
	b.complete(newCommand())
	if *recordCommands && !t.Failed() {
		if err := os.WriteFile(doc, []byte(strings.Join(b.log, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// walk reads the document. A block of YAML is a file, named by the comment in its first line. Other
// blocks have commands, each after "$ ", and what they print.
func (b *commandBook) walk(lines []string) {
	for len(lines) > 0 {
		line := lines[0]
		b.log, lines = append(b.log, line), lines[1:]
		if !strings.HasPrefix(line, "```") {
			continue
		}
		end := slices.Index(lines, "```")
		if end < 0 {
			b.t.Fatalf("%s: a block has no end: %s", commandsDoc, line)
		}
		block := lines[:end]
		lines = lines[end:]
		if name, ok := strings.CutPrefix(block[0], "# "); ok && line == "```yaml" {
			if err := os.WriteFile(name, []byte(strings.Join(block, "\n")), 0o600); err != nil {
				b.t.Fatal(err)
			}
		}
		b.block(block)
		b.log, lines = append(b.log, lines[0]), lines[1:]
	}
}

func (b *commandBook) block(block []string) {
	for len(block) > 0 {
		command, ok := strings.CutPrefix(block[0], "$ ")
		if !ok {
			b.log, block = append(b.log, block[0]), block[1:]
			continue
		}
		next := slices.IndexFunc(block[1:], func(line string) bool { return strings.HasPrefix(line, "$ ") }) + 1
		if next == 0 {
			next = len(block)
		}
		b.try(shown{command, trimBlank(block[1:next])})
		block = block[next:]
	}
}

// trimBlank takes blank lines off the end.
func trimBlank(lines []string) []string {
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// try runs a command, and compares or records what it prints.
func (b *commandBook) try(want shown) {
	b.t.Helper()
	got := b.perform(want)
	if *recordCommands {
		if last := b.log[len(b.log)-1]; last != "```" {
			b.log = append(b.log, "") // between two commands of a block
		}
		b.log = append(append(b.log, "$ "+got.command), got.output...)
		return
	}
	if code := got.code(); code != want.code() {
		b.t.Errorf("%s: exit code %d, but %d in %s:\n%s", want.command, code, want.code(), commandsDoc, strings.Join(got.output, "\n"))
	}
	have := shapes(got.output)
	for _, shape := range shapes(want.output) {
		if !slices.Contains(have, shape) {
			b.t.Errorf("%s printed no line like\n%s\nof %s, but\n%s", want.command, shape, commandsDoc, strings.Join(got.output, "\n"))
		}
	}
}

// perform runs a command and returns what it printed, shortened.
func (b *commandBook) perform(want shown) shown {
	b.t.Helper()
	if strings.HasPrefix(want.command, "kill ") {
		b.kill()
		return want
	}
	args := strings.Fields(want.command)
	if args[0] != "relay" {
		b.t.Fatalf("%s has a command that is not relay's: %s", commandsDoc, want.command)
	}
	args = args[1:]
	for i := range args {
		if sessionID.MatchString(args[i]) {
			args[i] = b.aliceSession()
		}
	}
	if cmd, _, err := newCommand().Find(args); err == nil {
		b.names[cmd.CommandPath()] = true
	}
	got := shown{command: strings.Join(append([]string{"relay"}, args...), " ")}
	var code int
	var printed string
	if len(args) > 0 && (args[0] == "watch" || args[0] == "serve") {
		code, printed = b.untilCtrlC(args)
	} else {
		var stderr string
		code, printed, stderr = b.run(args...)
		printed += stderr
	}
	printed = tokenText.ReplaceAllString(strings.TrimRight(printed, "\n"), "dmt_…")
	if printed != "" {
		got.output = strings.Split(printed, "\n")
	}
	if *recordCommands && len(got.output) > shownLines {
		got.output = append(got.output[:shownLines:shownLines], "…")
	}
	if code != cli.ExitOK {
		got.output = append(got.output, fmt.Sprintf("(exit code %d)", code))
	}
	return got
}

func (b *commandBook) aliceSession() string {
	_, stdout, _ := b.run("where", "--json", "alice")
	var where struct{ Answers []engine.WhereInfo }
	if err := json.Unmarshal([]byte(stdout), &where); err != nil || len(where.Answers) != 1 {
		b.t.Fatalf("where alice: %s", stdout)
	}
	return where.Answers[0].Session
}

// untilCtrlC runs a command that does not end by itself. While relay watch runs, carol is kicked
// and binds her ID again.
func (b *commandBook) untilCtrlC(args []string) (code int, printed string) {
	b.t.Helper()
	env := []string{"DISTMSG_ADMIN=" + b.admin}
	if args[0] == "serve" {
		env = append(env, "DISTMSG_ADMIN_LISTEN=127.0.0.1:0")
	}
	cmd := command(b.t, env, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop()
	var lines []string
	scanner := bufio.NewScanner(out)
	until := func(pattern string) {
		b.t.Helper()
		for re := regexp.MustCompile(pattern); scanner.Scan(); {
			if lines = append(lines, scanner.Text()); re.MatchString(scanner.Text()) {
				return
			}
		}
		b.t.Fatalf("relay %s ended before %s:\n%s", strings.Join(args, " "), pattern, strings.Join(lines, "\n"))
	}
	if args[0] == "serve" {
		until("relay serves")
	} else {
		until("carol  bound")
		b.expect("kick carol", "carol is kicked")
		until("carol  (not bound|unknown)") // unknown while the Redis of the test is new
		if err := b.sessions["carol"].Bind(b.t.Context(), "carol"); err != nil {
			b.t.Fatal(err)
		}
		until("carol  bound")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		b.t.Fatal(err)
	}
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return exitCode(b.t, cmd.Wait()), strings.Join(lines, "\n")
}

// complete reports the commands that the document does not run.
func (b *commandBook) complete(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		switch path := sub.CommandPath(); {
		case sub.HasSubCommands():
			b.complete(sub)
		case !b.names[path] && sub.Name() != "help" && sub.Parent().Name() != "completion":
			b.t.Errorf("%s does not run %s", commandsDoc, path)
		}
	}
}

// loadFrom12 is the load of the record: 300 messages a second from 12 connections.
func loadFrom12(t *testing.T, addrs []string) {
	program := filepath.Join(t.TempDir(), "loadtest")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../loadtest").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), program, "--nodes="+strings.Join(addrs, ","), "--conns=12", "--rate=300", "--duration=forever", "--quiet")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

var (
	quoted = regexp.MustCompile("(?:`|[(]`?|\\$ |sudo |\n)relay ([a-z][^`\n]*)")
	option = regexp.MustCompile(`--[a-z][a-z-]*`)
)

// Each command of relay that a document names exists, with the flags that it has there.
func TestCommandsInDocs(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	count := 0
	for _, name := range append(files, "../../README.md", "../../deploy/README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range quoted.FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(match[1])
			cmd, _, err := newCommand().Find(words[:1])
			if err != nil || cmd.Parent() == nil {
				continue // a sentence
			}
			count++
			for cmd.HasSubCommands() && len(words) > 1 {
				sub, _, err := cmd.Find(words[1:2])
				if err != nil || sub == cmd {
					break
				}
				cmd, words = sub, words[1:]
			}
			for _, flag := range option.FindAllString(match[1], -1) {
				if name := flag[2:]; cmd.Flag(name) == nil && name != "help" {
					t.Errorf("%s: relay %s: %s has no %s", name, match[1], cmd.CommandPath(), flag)
				}
			}
		}
	}
	if count < 20 {
		t.Errorf("found only %d commands", count)
	}
}
