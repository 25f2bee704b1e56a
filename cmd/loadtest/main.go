// Command loadtest sends messages through relay nodes. It reports how fast they were and whether
// every single one is accounted for. Package distmsg/loadtest does the work.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"distmsg/internal/cli"
	"distmsg/loadtest"
)

func main() {
	cli.EndWithGoRun()
	// A run goes on if nobody reads what it prints: its files and its exit code are still of use.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(int(run(os.Args[1:], os.Stdout, os.Stderr)))
}

// run executes the command line. If it fails, it prints one line on stderr that says why.
func run(args []string, stdout, stderr io.Writer) loadtest.ExitCode {
	code := loadtest.ExitOK
	root := newRoot(&code)
	root.SetArgs(args)
	root.SetOut(whileRead{stdout})
	root.SetErr(stderr)
	if err := root.Execute(); err != nil {
		line := strings.ReplaceAll(err.Error(), "\n", "; ")
		if code == loadtest.ExitOK { // cobra refused a flag or an argument
			code = loadtest.ExitUsage
			line += " (see: loadtest --help)"
		}
		fmt.Fprintln(stderr, "loadtest:", line)
	}
	return code
}

// whileRead is an output whose reader may leave, such as head, or a terminal. The rest is then
// thrown away.
type whileRead struct{ io.Writer }

func (w whileRead) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) {
		return len(p), nil
	}
	return n, err
}

// newRoot builds the command line. The commands store their exit code in code.
func newRoot(code *loadtest.ExitCode) *cobra.Command {
	root := newRun(code)
	root.Use = "loadtest"
	root.Long = root.Short + `.

Without a command, it is run. Without --nodes and --discovery, it starts a node in its own process. Exit codes: 0 ok,
1 runtime failure, 2 usage, 3 ledger fault, 4 threshold missed, 5 drain cut something off, 130 interrupted (a report of
the time until then is written).`
	root.Version = cli.Version()
	root.SilenceErrors, root.SilenceUsage = true, true
	root.AddCommand(newRun(code), newSweep(code), newCluster(code), newSoak(code), newDiff(code), newCompare(code), newAgent(code), newFloor(code))
	return root
}
