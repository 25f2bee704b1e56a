package ask

import (
	"context"

	"github.com/spf13/cobra"

	"distmsg/engine"
	"distmsg/internal/admin"
	"distmsg/internal/cli"
	"distmsg/internal/loglevel"
)

func newLogLevel() *cobra.Command {
	var node string
	cmd := newCommand("log-level [LEVELS]", "Show which lines the nodes log, or set that for one node",
		`Show which lines the nodes log, or set that for one node, while it runs. LEVELS is as for --log-level: a
level for everything, and others for components, as in info,links=debug. They stay until somebody sets
others, or the process ends.`, cobra.MaximumNArgs(1),
		func(ctx context.Context, c *call) error {
			if len(c.args) == 0 {
				_, err := list(ctx, c, "log-level", nil, logLevelColumns)
				return err
			}
			levels := c.args[0]
			if err := loglevel.Check(levels); err != nil {
				return cli.Usagef("LEVELS: %w", err)
			}
			return c.give(ctx, "log-level", admin.LogLevelOrder{Node: node, Levels: levels}, func([]byte) (string, error) {
				called := "the node at " + c.url
				if node != "" {
					called = "node " + visible(node)
				}
				return called + " logs " + levels, nil
			})
		})
	cmd.Flags().StringVar(&node, "node", "", "`name` of the node whose levels are set (default: the one that is asked)")
	_ = cmd.RegisterFlagCompletionFunc("node", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return nodeNames(cmd), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

var logLevelColumns = []column[engine.LogLevelInfo]{
	{"NODE", func(l engine.LogLevelInfo) string { return l.Node }},
	{"LEVELS", func(l engine.LogLevelInfo) string { return l.Levels }},
}
