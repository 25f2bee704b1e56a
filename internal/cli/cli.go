// Package cli has what our programs share: exit codes, and the conversion of an error to one line
// on stderr.
package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit codes of all our programs.
const (
	ExitOK              = 0
	ExitFailure         = 1 // something went wrong at run time
	ExitUsage           = 2 // the command line is wrong; nothing was started
	ExitLedgerFault     = 3 // a message was lost, duplicated, misreported…
	ExitThresholdMissed = 4 // a requested limit was not met
	ExitCutOff          = 5 // draining ended before all clients had left
	ExitClientFault     = 6 // conformance: the client under test broke a rule
	ExitIncomplete      = 7 // relay nodes and the like: the answer lacks what some nodes know

	ExitInterrupted = 130 // a signal ended the program early
)

// exitError is an error with an exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// WithCode gives err an exit code. A nil error stays nil.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// Usagef returns an error about the command line.
func Usagef(format string, args ...any) error {
	return WithCode(ExitUsage, fmt.Errorf(format, args...))
}

// RunE wraps the function of a command: its errors mean ExitFailure unless they have another code
// from WithCode. Errors that cobra finds before it calls the function are about the command line.
func RunE(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if coded := (*exitError)(nil); err == nil || errors.As(err, &coded) {
			return err
		}
		return WithCode(ExitFailure, err)
	}
}

// RefuseEmpty returns a usage error for the first flag that was given an empty value: an empty text
// or list, or zero. Usually a variable of a script was not set, and the default would hide that.
// except names the flags for which such a value is meaningful.
func RefuseEmpty(flags *pflag.FlagSet, except ...string) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if err != nil || slices.Contains(except, f.Name) || !slices.Contains([]string{"", "[]", "0", "0s"}, value) {
			return
		}
		if value == "" || value == "[]" {
			value = "empty"
		}
		err = Usagef("--%s is %s: give it a value, or leave it out", f.Name, value)
	})
	return err
}

// Execute runs root, whose commands use RunE, with args. An error is written to stderr as one line;
// the result is the exit code.
func Execute(root *cobra.Command, args []string, stderr io.Writer) int {
	EndWithGoRun()
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return ExitOK
	}
	line := strings.ReplaceAll(err.Error(), "\n", "; ") // errors.Join makes several lines
	if coded := (*exitError)(nil); errors.As(err, &coded) {
		say(stderr, fmt.Sprintf("%s: %s\n", root.Name(), line))
		return coded.code
	}
	say(stderr, fmt.Sprintf("%s: %s (see: %s --help)\n", root.Name(), line, cmd.CommandPath()))
	return ExitUsage
}

// lastWord bounds how long a program waits at its end for the reader of its stderr.
const lastWord = time.Second

// say writes the last line of a program. A pipe that nobody reads does not prevent the program from
// ending.
func say(stderr io.Writer, line string) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(stderr, line)
	}()
	select {
	case <-written:
	case <-time.After(lastWord):
	}
}

// Version returns the output of --version: the module's version and the Go version of the build.
func Version() string {
	b := ReadBuild()
	return strings.TrimSpace(b.Version + " " + b.Go)
}

// Build says what a program was built from. What is not known is "unknown", or "" for Go.
type Build struct {
	Version  string // of the module
	Revision string // of the repository; it ends with -dirty if files had changed
	Go       string
}

// ReadBuild returns what this program was built from.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{Version: "unknown", Revision: "unknown"}
	}
	b := Build{Version: info.Main.Version, Revision: "unknown", Go: info.GoVersion}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	b.Revision += dirty
	return b
}
