package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// parentCheck is how often a program that go run has started checks whether go run still exists.
const parentCheck = 250 * time.Millisecond

// EndWithGoRun sends this process SIGTERM when the go run that started it ends. A killed go run
// forwards no signal, so the program would continue although the user believes that it has ended.
// EndWithGoRun does nothing in a program that was built and started in another way.
func EndWithGoRun() {
	exe, err := os.Executable()
	if err != nil || !builtByGoRun(exe) {
		return
	}
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent {
			time.Sleep(parentCheck)
		}
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}()
}

// builtByGoRun reports whether a program is where go run puts it: in go-buildN/b001/exe, or, if go
// run has built the same program before, in its cache, in a directory whose name is a hash and
// "-d".
func builtByGoRun(exe string) bool {
	dir := filepath.ToSlash(filepath.Dir(exe))
	hash, cached := strings.CutSuffix(filepath.Base(dir), "-d")
	sum, err := hex.DecodeString(hash)
	return strings.HasSuffix(dir, "/exe") && strings.Contains(dir, "/go-build") ||
		cached && err == nil && len(sum) == sha256.Size
}
