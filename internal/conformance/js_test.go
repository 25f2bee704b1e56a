package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"distmsg/internal/proc"
)

const exampleClient = "../../docs/protocol/example-client"

// manyJS is one process that runs an example client for each scenario: to start Node.js takes
// longer than most scenarios do.
func manyJS(t *testing.T) Client {
	t.Helper()
	if err := proc.InstallNode(exampleClient); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "conform.js")
	cmd.Dir = exampleClient
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var mu sync.Mutex
	say := func(node string) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintln(in, node)
		return err
	}
	return func(ctx context.Context, node, _ string) (string, error) {
		if err := say(node); err != nil {
			return "", err
		}
		<-ctx.Done()
		return "", say(node)
	}
}

func TestExampleClientPasses(t *testing.T) {
	passes(t, Config{Client: manyJS(t), Parallel: 25, Arrival: time.Minute, Patience: 20 * time.Second}, "multicast", "watch")
}
