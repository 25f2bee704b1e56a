package cli_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"distmsg/internal/cli"
)

func TestExecute(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		err  error // what the command returns
		code int
		line string // what stderr has to hold
	}{
		{"success", nil, nil, cli.ExitOK, ""},
		{"failure", nil, errors.New("it broke"), cli.ExitFailure, "tool: it broke"},
		{"coded", nil, cli.WithCode(cli.ExitLedgerFault, errors.New("2 lost")), cli.ExitLedgerFault, "tool: 2 lost"},
		{"coded and joined", nil, errors.Join(cli.WithCode(cli.ExitCutOff, errors.New("cut")), errors.New("and more")), cli.ExitCutOff, "tool: cut; and more"},
		{"usage found by the command", nil, cli.Usagef("--a excludes %s", "--b"), cli.ExitUsage, "tool: --a excludes --b"},
		{"unknown flag", []string{"--nope"}, nil, cli.ExitUsage, "tool: unknown flag: --nope (see: tool --help)"},
		{"unknown command", []string{"nope"}, nil, cli.ExitUsage, `tool: unknown command "nope" for "tool" (see: tool --help)`},
		{"no number", []string{"run", "--n=x"}, nil, cli.ExitUsage, "see: tool run --help"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := cli.RunE(func(*cobra.Command, []string) error { return tc.err })
			root := &cobra.Command{Use: "tool", Args: cobra.NoArgs, RunE: run}
			sub := &cobra.Command{Use: "run", RunE: run}
			sub.Flags().Int("n", 0, "a number")
			root.AddCommand(sub)
			var stderr strings.Builder
			if code := cli.Execute(root, tc.args, &stderr); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if got := stderr.String(); !strings.Contains(got, tc.line) || strings.Count(got, "\n") > 1 {
				t.Errorf("stderr is %q, want one line with %q", got, tc.line)
			}
		})
	}
}

func TestWithCodeKeepsNil(t *testing.T) {
	if err := cli.WithCode(cli.ExitFailure, nil); err != nil {
		t.Errorf("got %v", err)
	}
}
