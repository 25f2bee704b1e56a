// Package protocol_test holds the protocol document to a real node: the defaults that it names are
// those that a node announces, and the programs beside it, written without our codec, work.
package protocol_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/internal/proc"
)

// startNode runs an engine until the test ends and returns where it listens.
func startNode(t *testing.T, config engine.Config) string {
	t.Helper()
	config.Addr = "127.0.0.1:0"
	config.Logger = slog.New(slog.DiscardHandler)
	node, err := engine.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error("the node:", err)
		}
	})
	select {
	case <-node.Ready():
	case err := <-done:
		t.Fatal("the node did not start:", err)
	}
	return node.Addr().String()
}

// runNode runs a Node script in its directory, after npm ci if its packages are not there. That
// node or npm is missing is a failure: without them nobody checks the document but ourselves.
func runNode(t *testing.T, dir string, args ...string) {
	t.Helper()
	if err := proc.InstallNode(dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", run(t, dir, "node", args...))
}

func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func TestVectorsWithAnotherImplementation(t *testing.T) {
	runNode(t, "check-vectors", "check.js")
}

func TestExampleClient(t *testing.T) {
	for name, config := range map[string]engine.Config{
		"defaults":     {Loops: 2},
		"small limits": {Loops: 1, MaxPayload: 2048, MaxIDs: 8, Credit: 8192},
	} {
		t.Run(name, func(t *testing.T) {
			runNode(t, "example-client", "test.js", "--node", startNode(t, config))
		})
	}
}

func TestExampleClientCommand(t *testing.T) {
	addr := startNode(t, engine.Config{Loops: 1})
	echo := exec.Command("node", "client.js", "--node", addr, "--id", "bob", "--echo")
	echo.Dir = "example-client"
	out, err := echo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runNode(t, "example-client", "--check", "client.js") // installs
	if err := echo.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = echo.Process.Kill()
		_ = echo.Wait()
	}()
	first := make([]byte, 64)
	if n, err := io.ReadAtLeast(out, first, len("bob is bound")); err != nil || !strings.HasPrefix(string(first), "bob is bound") {
		t.Fatalf("%q, %v", first[:n], err)
	}
	got := string(run(t, "example-client", "node", "client.js", "--node", addr, "--id", "alice", "--send", "bob:hello", "--send", "dave:hello"))
	if want := "-> bob: acked, reply: hello\n-> dave: no_route\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDocumentedDefaults(t *testing.T) {
	conn, err := net.Dial("tcp", startNode(t, engine.Config{Loops: 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1})); err != nil {
		t.Fatal(err)
	}
	var buf []byte
	var welcome codec.Welcome
	for {
		body, n, err := codec.Split(buf, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if err := codec.DecodeWelcome(body, &welcome); err != nil {
				t.Fatal(err)
			}
			break
		}
		part := make([]byte, 4096)
		got, err := conn.Read(part)
		if err != nil {
			t.Fatal(err)
		}
		buf = append(buf, part[:got]...)
	}
	document, err := os.ReadFile("../protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]uint64{}
	for _, m := range regexp.MustCompile(`(?m)^\| \d+ \| (\w+) \| [^|]+ \| (\d+) \|`).FindAllStringSubmatch(string(document), -1) {
		if documented[m[1]], err = strconv.ParseUint(m[2], 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	limits := reflect.ValueOf(welcome.Limits)
	if len(documented) != limits.NumField() {
		t.Errorf("%d limits are documented, a node announces %d", len(documented), limits.NumField())
	}
	for i := range limits.NumField() {
		name := snakeCase(limits.Type().Field(i).Name)
		if got := limits.Field(i).Uint(); documented[name] != got {
			t.Errorf("%s is %d, the document says %d", name, got, documented[name])
		}
	}
}

// snakeCase turns MaxIDs and DefaultTTL into max_ids and default_ttl.
func snakeCase(s string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(s, "${1}_${2}"))
}

// TestNoRegistryHosts: where packages come from is the business of whoever installs them.
func TestNoRegistryHosts(t *testing.T) {
	for _, pattern := range []string{"*/package.json", "*/package-lock.json", "*/.npmrc"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) != 2 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "://") || strings.Contains(string(b), "\"resolved\"") {
				t.Errorf("%s names a host", name)
			}
		}
	}
}
