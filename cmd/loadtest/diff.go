package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"distmsg/internal/cli"
	"distmsg/loadtest"
	"distmsg/loadtest/judge"
	"distmsg/loadtest/report"
	"distmsg/loadtest/result"
)

// newDiff builds the command that compares two runs.
func newDiff(code *loadtest.ExitCode) *cobra.Command {
	var out outputFlags
	var atLeast float64
	cmd := &cobra.Command{
		Use:   "diff BEFORE.json AFTER.json",
		Short: "Compare two runs: better, worse, or cannot tell",
		Long: `Compare two runs: better, worse, or cannot tell.

The files are those of run --json. Each run needs --rounds 5 or more, because the rounds show the noise. Exit codes:
0 nothing is worse, 3 the ledger of the later run has faults, 4 something is worse.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, files []string) (err error) {
			*code, err = diff(cmd, files, &out, atLeast)
			return err
		},
	}
	out.addTo(cmd.Flags())
	cmd.Flags().Float64Var(&atLeast, "min-change", 0.01, "share by which a metric must differ to be better or worse")
	return cmd
}

func diff(cmd *cobra.Command, files []string, out *outputFlags, atLeast float64) (loadtest.ExitCode, error) {
	if err := errors.Join(cli.RefuseEmpty(cmd.Flags(), "min-change"), refuseSameFile(cmd.Flags())); err != nil {
		return loadtest.ExitUsage, err
	}
	if atLeast < 0 || atLeast >= 1 {
		return loadtest.ExitUsage, fmt.Errorf("--min-change is %g, want 0 to 1", atLeast)
	}
	var sides [2]*loadtest.Report
	for i, file := range files {
		var err error
		if sides[i], err = readReport(file); err != nil {
			return loadtest.ExitUsage, err
		}
	}
	pages, err := out.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer pages.close()
	c := judge.Compare(files[0], sides[0], files[1], sides[1], atLeast)
	err = errors.Join(c.WriteText(out.unlessQuiet(cmd.OutOrStdout())), pages.write(c, report.OfComparison(c)))
	switch {
	case err != nil:
		return loadtest.ExitFailure, err
	case c.Faults > 0:
		return loadtest.ExitLedger, fmt.Errorf("the ledger of %s has %d faults", files[1], c.Faults)
	case c.Verdict == result.Worse:
		return loadtest.ExitThreshold, fmt.Errorf("%s is worse than %s", files[1], files[0])
	}
	return loadtest.ExitOK, nil
}

// readReport reads what run --json has written.
func readReport(file string) (*loadtest.Report, error) {
	return readResult[loadtest.Report](file, "run", result.Schema)
}

// readResult reads what a command has written with --json.
func readResult[T any](file, command, schema string) (*T, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var head struct{ Schema string }
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%s is not what %s --json writes: %w", file, command, err)
	}
	if head.Schema != schema {
		return nil, fmt.Errorf("%s is not what %s --json writes: it has the schema %q, want %q", file, command, head.Schema, schema)
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%s is not what %s --json writes: %w", file, command, err)
	}
	return v, nil
}
