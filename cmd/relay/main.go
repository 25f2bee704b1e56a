// Command relay runs one node: clients connect to it and exchange messages by ID.
//
//	relay [serve] [flags]
//	relay config check FILE
//	relay config show [flags]
//	relay token add|list|remove
//	relay healthcheck [flags]
//	relay nodes|sessions|conns|links|ids|where|trace|watch|kick|drain|undrain|rebalance|log-level|top
//	relay completion bash|zsh|fish
//
// See relay --help. It ends with one of the exit codes of package cli.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"distmsg/internal/ask"
	"distmsg/internal/cli"
)

func main() { os.Exit(cli.Execute(newCommand(), os.Args[1:], os.Stderr)) }

// newCommand returns the command relay. Without a verb, it does the same as relay serve.
func newCommand() *cobra.Command {
	serve := newServeCommand()
	root := &cobra.Command{
		Use:   "relay",
		Short: "A distmsg node: send to an ID and get a truthful answer",
		Long: `A distmsg node: send to an ID and get a truthful answer. Without a command, relay serves (relay
serve).

Each flag may also stand in the environment (DISTMSG_LOG_LEVEL for --log-level) or in the file that
--config names (log-level). The command line beats the environment, and that beats the file.`,
		Version: cli.Version(),
		Args:    cobra.NoArgs,
		RunE:    serve.RunE,
	}
	root.Flags().SortFlags = false
	root.Flags().AddFlagSet(serve.Flags())
	root.AddCommand(serve, newConfigCommand(serve.Flags()), newTokenCommand(), newHealthcheckCommand(serve.Flags()), newManCommand())
	root.AddGroup(ask.Group())
	root.AddCommand(ask.Commands()...)
	return root
}
