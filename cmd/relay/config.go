package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/internal/ask"
	"distmsg/internal/cli"
	"distmsg/internal/settings"
)

// program says where relay's flags have their values from.
func program() *settings.Program {
	return &settings.Program{
		Prefix: "DISTMSG_", FileFlag: "config", MayBe0: []string{"admin-listen", "auth-jwt-leeway"},
		Secrets: []settings.Secret{
			{Variable: envSecret, FileFlag: "cluster-secret-file"},
			{Variable: envRegistryPassword, FileFlag: "registry-password-file"},
			{Variable: envSentinelPassword, FileFlag: "registry-sentinel-password-file"},
			{Variable: envDiscoveryAuth, FileFlag: "discovery-auth-file"},
		},
		Others: ask.Variables(),
	}
}

// load returns the values that a start with the command line would have now. They are not checked
// against each other: see options.check.
func load(line *pflag.FlagSet) (*options, *settings.Result, error) {
	opts := new(options)
	flags := pflag.NewFlagSet("relay", pflag.ContinueOnError)
	opts.addFlags(flags)
	found, err := program().Load(flags, line, os.Environ())
	return opts, found, cli.WithCode(cli.ExitUsage, err)
}

// warnUnknown logs variables that look like ours and are not. They are no error, since others set
// such variables, too: Kubernetes does for a service called distmsg.
func warnUnknown(found *settings.Result, logger *slog.Logger) {
	for _, variable := range found.Unknown {
		logger.Warn("the environment has a variable that relay does not know", "variable", variable)
	}
}

// newConfigCommand returns relay config. Its commands take the flags of relay serve.
func newConfigCommand(serve *pflag.FlagSet) *cobra.Command {
	config := &cobra.Command{
		Use:   "config",
		Short: "Check a file with settings, or show the values of all flags",
		Args:  cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) error {
			return cli.Usagef("want relay config check FILE, or relay config show")
		}),
	}
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a file with settings, without starting anything",
		Long: `Say what is wrong with a file with settings, without starting anything. The environment and flags
count as they do for relay --config FILE. Files that it names are read. The exit code is 2 if
something is wrong.`,
		Args: cobra.ExactArgs(1),
		RunE: cli.RunE(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("config") {
				return cli.Usagef("the file to check is %s: leave out --config", args[0])
			}
			if err := cmd.Flags().Set("config", args[0]); err != nil {
				return err
			}
			if err := checkConfig(cmd.Flags(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return err
		}),
	}
	var asJSON bool
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the value of each flag, and where it comes from; secrets are hidden",
		Args:  cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) error {
			opts, found, err := load(cmd.Flags())
			if err != nil {
				return err
			}
			if err := showValues(cmd.OutOrStdout(), found.Values, asJSON); err != nil {
				return err
			}
			return found.Locate(opts.check()) // of an error, the list helps to find the cause
		}),
	}
	show.Flags().BoolVar(&asJSON, "json", false, "write a JSON array")
	for _, cmd := range []*cobra.Command{check, show} {
		cmd.Flags().SortFlags = false
		cmd.Flags().AddFlagSet(serve)
		config.AddCommand(cmd)
	}
	return config
}

// checkConfig checks all that a start checks before it connects to anything.
func checkConfig(line *pflag.FlagSet, stderr io.Writer) error {
	opts, found, err := load(line)
	if err != nil {
		return err
	}
	return found.Locate(checkWith(opts, found, stderr))
}

// checkWith checks the options that load has found.
func checkWith(opts *options, found *settings.Result, stderr io.Writer) error {
	log, _, err := newLogger(opts.logLevel, opts.logFormat, stderr)
	if err != nil {
		return err
	}
	defer log.Flush(flushTime)
	warnUnknown(found, log.Logger)
	if err := opts.check(); err != nil {
		return err
	}
	if _, err = readSecrets(*opts, log.Logger); err != nil {
		return err
	}
	if _, err = opts.tls.open(log.Logger); err != nil {
		return err
	}
	if _, err = openLogins(&opts.auth, opts.insecureListen, log.Logger); err != nil {
		return err
	}
	_, err = openOperators(opts, log.Logger)
	return err
}

// showValues writes one line for each value, or all as JSON.
func showValues(to io.Writer, values []settings.Value, asJSON bool) error {
	if asJSON {
		out := json.NewEncoder(to)
		out.SetIndent("", "  ")
		return out.Encode(values)
	}
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, v := range values {
		text := v.Text
		if text == "" {
			text = "-"
		}
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\n", v.Name, text, v.Origin); err != nil {
			return err
		}
	}
	return table.Flush()
}
