package proc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// InstallNode installs the packages of a Node.js program in dir, from its package-lock.json, if
// they are not there. Tests of several packages that run at the same time may call it for one dir:
// one of them installs, and the others wait.
func InstallNode(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil { // until d is closed
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	// npm writes this file when it has installed everything else.
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err == nil {
		return nil
	}
	npm := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", dir, err, out)
	}
	return nil
}
