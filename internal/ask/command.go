package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"distmsg/engine"
	"distmsg/internal/cli"
)

const groupID = "operate"

// Group is the group of the commands in the help text of their parent, which has to add it.
func Group() *cobra.Group { return &cobra.Group{ID: groupID, Title: "Ask a node, and give orders:"} }

// Commands returns all commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		newNodes(), newSessions(), newConns(), newLinks(), newIDs(), newWhere(), newTrace(), newWatch(), newTop(),
		newKick(), newDrain(), newUndrain(), newRebalance(), newLogLevel(),
	}
}

// call is one run of a command.
type call struct {
	*Client
	args []string
	out  io.Writer
	json bool
}

// newCommand returns a command. flags are its own.
func newCommand(use, short, long string, args cobra.PositionalArgs, run func(ctx context.Context, c *call) error) *cobra.Command {
	f := new(flags)
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: args, GroupID: groupID,
		RunE: cli.RunE(func(cmd *cobra.Command, args []string) error {
			client, err := f.client(cmd.Flags())
			if err != nil {
				return err
			}
			return run(cmd.Context(), &call{Client: client, args: args, out: cmd.OutOrStdout(), json: f.json})
		}),
	}
	f.addTo(cmd.Flags())
	return cmd
}

// completeNodes completes the argument of a command with the nodes' names.
func completeNodes(cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return nodeNames(cmd), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// nodeNames returns the names of all nodes that answer at once.
func nodeNames(cmd *cobra.Command) (names []string) {
	f := new(flags)
	set := cmd.Flags()
	f.admin, _ = set.GetString("admin")
	f.tokenFile, _ = set.GetString("token-file")
	f.tls.CA, _ = set.GetString("tls-ca")
	f.tls.Cert, _ = set.GetString("tls-cert")
	f.tls.Key, _ = set.GetString("tls-key")
	f.serverName, _ = set.GetString("tls-server-name")
	f.timeout = time.Second
	client, err := f.client(set)
	if err != nil {
		return nil
	}
	var nodes engine.Asked[engine.NodeInfo]
	if answer, err := client.ask(cmd.Context(), "nodes", nil); err != nil || json.Unmarshal(answer, &nodes) != nil {
		return nil
	}
	for _, n := range nodes.Answers {
		names = append(names, n.Node)
	}
	return names
}

// question sends a question. With --json it prints the answer, and else it returns it in into.
func (c *call) question(ctx context.Context, name string, query url.Values, into any) (printed bool, err error) {
	answer, err := c.ask(ctx, name, query)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return false, fmt.Errorf("the answer of --admin %s cannot be read: %w: have the node and this program the same version?", c.url, err)
	}
	if c.json {
		return true, c.printJSON(answer)
	}
	return false, nil
}

func (c *call) printJSON(answer []byte) error {
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(answer), "", "  "); err != nil {
		return err
	}
	pretty.WriteByte('\n')
	_, err := pretty.WriteTo(c.out)
	return err
}

// list prints a table of what all nodes answered to a question, and below it who did not answer.
func list[T any](ctx context.Context, c *call, name string, query url.Values, columns []column[T]) (engine.Asked[T], error) {
	var asked engine.Asked[T]
	printed, err := c.question(ctx, name, query, &asked)
	if err != nil || printed {
		return asked, either(err, incomplete(len(asked.Missing)))
	}
	if err := writeTable(c.out, columns, asked.Answers); err != nil {
		return asked, err
	}
	return asked, c.printMissing(asked.Missing)
}

func either(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// printMissing prints who did not answer. Its error then says so, too.
func (c *call) printMissing(missing []engine.MissingNode) error {
	for _, m := range missing {
		if _, err := fmt.Fprintf(c.out, "no answer from %s: %s\n", visible(m.Node), visible(m.Why)); err != nil {
			return err
		}
	}
	return incomplete(len(missing))
}
