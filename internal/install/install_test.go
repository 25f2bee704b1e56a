// Package install tests what users install: the packages that packaging/release builds, and the
// alerts and the dashboard in deploy.
package install

import (
	"os"
	"os/exec"
	"testing"
)

const root = "../.."

// run runs a command at the top of the repository and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
