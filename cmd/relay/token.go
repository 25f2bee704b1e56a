package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"distmsg/internal/cli"
	"distmsg/internal/identity"
)

// newTokenCommand returns relay token, whose commands edit a file of tokens.
func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and remove the tokens that clients show",
		Long: `Make, list and remove the tokens that clients show to a node with --auth-token-file. The file has
only salted hashes of the tokens. A node reads it again by itself when it changes.`,
		Args: cobra.NoArgs,
	}
	var file string
	cmd.PersistentFlags().StringVar(&file, "auth-token-file", "", "the `file` of tokens")
	cmd.AddCommand(newTokenAdd(&file), newTokenList(&file), newTokenRemove(&file))
	return cmd
}

// needFile refuses commands without the file.
func needFile(file string) error {
	if file == "" {
		return cli.Usagef("give the file of tokens: --auth-token-file FILE")
	}
	return nil
}

func newTokenAdd(file *string) *cobra.Command {
	var ids, limits []string
	var noIDs, noLookup, noWatch, noOrders bool
	var expires string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a token for the identity NAME, and print it",
		Long: `Make a token for the identity NAME, append its hash and rights to the file, and print it. It cannot
be printed again. Several tokens may have one name.`,
		Args: cobra.ExactArgs(1),
		RunE: cli.RunE(func(cmd *cobra.Command, args []string) error {
			if err := needFile(*file); err != nil {
				return err
			}
			if noIDs && len(ids) > 0 {
				return cli.Usagef("--ids and --no-ids exclude each other")
			}
			end, err := parseExpires(expires, time.Now())
			if err != nil {
				return err
			}
			rights := identity.Rights{IDs: ids, Lookup: butNot(noLookup), Watch: butNot(noWatch)}
			if noIDs {
				rights.IDs = identity.Patterns{}
			}
			if rights.Limits, err = parseLimits(limits); err != nil {
				return err
			}
			token, line, err := identity.NewToken(args[0], rights, end)
			if err != nil {
				return cli.WithCode(cli.ExitUsage, err)
			}
			line.Orders = butNot(noOrders)
			if err := identity.AddToken(*file, line); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "the token of %s has the key %s in %s, and is shown only now:\n", line.Name, line.Key, *file)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&ids, "ids", nil, "`patterns` of the IDs that it may bind and send from: an ID, or a prefix followed by * (default: every ID)")
	f.BoolVar(&noIDs, "no-ids", false, "it may bind no ID")
	f.BoolVar(&noLookup, "no-lookup", false, "it may not look up who is online")
	f.BoolVar(&noWatch, "no-watch", false, "it may not watch who is online")
	f.BoolVar(&noOrders, "no-orders", false, "as an operator (relay serve --admin-token-file), it may ask, and not kick, drain or change anything")
	f.StringArrayVar(&limits, "limit", nil, "`NAME=NUMBER`: a limit other than the node's default; repeat it for more")
	f.StringVar(&expires, "expires", "", "when it ends: a `time` from now as in 12h or 90d, a day as in 2030-12-31, or 2030-12-31T18:00:00Z (default: never)")
	return cmd
}

// butNot returns false if a right is taken away, and nil (the default) otherwise.
func butNot(taken bool) *bool {
	if !taken {
		return nil
	}
	return new(bool)
}

func parseLimits(list []string) (identity.Limits, error) {
	limits := make(identity.Limits)
	for _, l := range list {
		name, number, _ := strings.Cut(l, "=")
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return nil, cli.Usagef("--limit %s is not NAME=NUMBER", brief(l))
		}
		limits[name] = value
	}
	return limits, nil
}

// parseExpires reads a time from now, a day (its beginning, in UTC) or a point in time.
func parseExpires(text string, now time.Time) (end time.Time, err error) {
	if text == "" {
		return time.Time{}, nil
	}
	duration := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			duration = fmt.Sprint(24*n) + "h"
		}
	}
	if d, err := time.ParseDuration(duration); err == nil {
		end = now.Add(d)
	} else if end, err = time.Parse(time.DateOnly, text); err != nil {
		if end, err = time.Parse(time.RFC3339, text); err != nil {
			return end, cli.Usagef("--expires %s is no time: want one as 12h, 90d, 2030-12-31 or 2030-12-31T18:00:00Z", brief(text))
		}
	}
	if !end.After(now) {
		return end, cli.Usagef("--expires %s is over already", brief(text))
	}
	return end.UTC().Truncate(time.Second), nil
}

func newTokenList(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens of the file: their keys and rights",
		Args:  cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) error {
			if err := needFile(*file); err != nil {
				return err
			}
			text, err := os.ReadFile(*file)
			if err != nil {
				return err
			}
			lines, err := identity.ParseTokenFile(text)
			if err != nil {
				return fmt.Errorf("%s: %w", *file, err)
			}
			return listTokens(cmd.OutOrStdout(), lines, time.Now())
		}),
	}
}

func listTokens(w io.Writer, lines []identity.TokenLine, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tNAME\tIDS\tNOT ALLOWED\tLIMITS\tEXPIRES")
	for _, l := range lines {
		ids := strings.Join(l.IDs, ",")
		switch {
		case l.IDs == nil:
			ids = "every"
		case len(l.IDs) == 0:
			ids = "none"
		}
		var not, limits []string
		if l.Lookup != nil && !*l.Lookup {
			not = append(not, "lookup")
		}
		if l.Watch != nil && !*l.Watch {
			not = append(not, "watch")
		}
		if !l.MayOrder() {
			not = append(not, "orders")
		}
		for _, name := range slices.Sorted(maps.Keys(l.Limits)) {
			limits = append(limits, fmt.Sprintf("%s=%v", name, l.Limits[name]))
		}
		end := "never"
		if !l.Expires.IsZero() {
			end = l.Expires.Format(time.RFC3339)
			if !l.Expires.After(now) {
				end += " (expired)"
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Key, l.Name, ids, orDash(not), orDash(limits), end)
	}
	return table.Flush()
}

func orDash(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ",")
}

func newTokenRemove(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove KEY|NAME",
		Short: "Remove a token by its key, or by its name if no other token has that",
		Long: `Remove a token by its key, or by its name if no other token has that. Nodes then ask the clients
that use the name to log in again, and close the connections of those that cannot.`,
		Args: cobra.ExactArgs(1),
		RunE: cli.RunE(func(cmd *cobra.Command, args []string) error {
			if err := needFile(*file); err != nil {
				return err
			}
			removed, err := identity.RemoveToken(*file, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "removed the token of %s with the key %s\n", removed.Name, removed.Key)
			return err
		}),
	}
}
