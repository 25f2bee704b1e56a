package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/internal/settings"
	"distmsg/loadtest"
)

// mayBe0 lists the flags for which 0 is a value like others.
func mayBe0() []string {
	return []string{"rate", "warmup", "seed", "server-pid", "cross", "min-change", "zipf", "offline", "ack-delay",
		"churn-binds", "churn-moves", "churn-reconnects", "max-p99", "max-failed", "max-behind", "refine", "first", "most", "max-growth"}
}

// options are the values of a command's flags.
type options interface {
	addTo(f *pflag.FlagSet)
	// run runs the command. flags are those that the values came from.
	run(cmd *cobra.Command, flags *pflag.FlagSet) (loadtest.ExitCode, error)
}

// scenarioCommands are the commands that read scenarios.
func scenarioCommands() []scenarioCommand {
	return []scenarioCommand{
		{"run", func() options { return new(runOptions) }}, {"sweep", func() options { return new(sweepOptions) }},
		{"cluster", func() options { return new(clusterOptions) }}, {"soak", func() options { return new(soakOptions) }},
	}
}

type scenarioCommand struct {
	name  string
	fresh func() options
}

// ofOthers says which other commands have a flag of this name. It is empty if none has.
func ofOthers(key string) string {
	var names []string
	for _, c := range scenarioCommands() {
		f := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
		if c.fresh().addTo(f); f.Lookup(key) != nil {
			names = append(names, c.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "this command has no such flag, only these have: " + strings.Join(names, ", ")
}

// excluding are groups of flags that exclude each other.
func excluding() [][]string {
	return [][]string{{"rate", "window", "stages"}, {"window", "arrivals"}, {"payload", "payloads"}, {"nodes", "discovery"},
		{"zipf", "cross", "fanout"}, {"offline", "fanout"}, {"ack-delay", "no-ack"}, {"steps", "first"}, {"steps", "most"}}
}

// withScenario makes a command run with the values of its flags, and of the file that --scenario
// names. fresh returns the default values.
func withScenario(cmd *cobra.Command, code *loadtest.ExitCode, fresh func() options) *cobra.Command {
	line := fresh()
	line.addTo(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		values := fresh()
		all := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
		values.addTo(all)
		if !cmd.Flags().Changed("scenario") {
			*code, err = line.run(cmd, cmd.Flags())
			return err
		}
		found, err := resolve(all, cmd.Flags())
		if err != nil {
			*code = loadtest.ExitUsage
			return err
		}
		if *code, err = values.run(cmd, all); *code == loadtest.ExitUsage {
			err = found.Locate(err)
		}
		return err
	}
	return cmd
}

// resolve gives the flags of into, which are those of line, the values of the scenario and of the
// command line, which wins. A flag of the command line also takes the place of those of the
// scenario that exclude it.
func resolve(into, line *pflag.FlagSet) (*settings.Result, error) {
	program := settings.Program{Prefix: "LOADTEST_", FileFlag: "scenario", MayBe0: mayBe0(), OneOf: excluding(), Elsewhere: ofOthers}
	return program.Load(into, line, nil)
}

// span is the value of --duration: a time, or forever.
type span time.Duration

// forever is the span of a run that Ctrl-C ends.
const forever span = -1

func (s *span) String() string {
	if *s == forever {
		return "forever"
	}
	return time.Duration(*s).String()
}

func (s *span) Set(text string) error {
	if text == "forever" {
		*s = forever
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no time such as 10s, and not forever", text)
	}
	if d <= 0 {
		return errors.New("want more than 0, or forever")
	}
	*s = span(d)
	return nil
}

func (s *span) Type() string { return "duration" }
