package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"distmsg/internal/admin"
	"distmsg/internal/cli"
)

// give gives an order. With --json it prints the answer, and else a line for people.
func (c *call) give(ctx context.Context, name string, body any, line func(answer []byte) (string, error)) error {
	answer, err := c.order(ctx, name, body)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(answer)
	}
	text, err := line(answer)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, text)
	return err
}

func newKick() *cobra.Command {
	return newCommand("kick ID", "Take an ID away from the session that has it",
		`Take an ID away from the session that has it. Its client is notified, and may bind it again.`, cobra.ExactArgs(1),
		func(ctx context.Context, c *call) error {
			return c.give(ctx, "kick", admin.KickOrder{ID: c.args[0]}, func([]byte) (string, error) {
				return visible(c.args[0]) + " is kicked", nil
			})
		})
}

// nodeArg returns the argument that names a node, and how to call it.
func (c *call) nodeArg() (node, called string) {
	if len(c.args) == 0 {
		return "", "the node at " + c.url
	}
	return c.args[0], "node " + visible(c.args[0])
}

func newDrain() *cobra.Command {
	return completeNodes(newCommand("drain [NODE]", "Let a node take no new clients, and ask its clients to move to others",
		`Let a node take no new clients, and ask its clients to move to others. Without NODE, it is the node that
is asked. The process goes on: relay undrain ends this, and SIGTERM ends the process.`, cobra.MaximumNArgs(1),
		func(ctx context.Context, c *call) error {
			node, called := c.nodeArg()
			return c.give(ctx, "drain", admin.NodeOrder{Node: node}, func([]byte) (string, error) {
				return called + " drains; relay nodes shows how many sessions are left", nil
			})
		}))
}

func newUndrain() *cobra.Command {
	return completeNodes(newCommand("undrain [NODE]", "Let a node that drains take clients again",
		`Let a node that drains because of relay drain take clients again. Without NODE, it is the node that is
asked.`, cobra.MaximumNArgs(1),
		func(ctx context.Context, c *call) error {
			node, called := c.nodeArg()
			return c.give(ctx, "undrain", admin.NodeOrder{Node: node}, func([]byte) (string, error) {
				return called + " takes clients", nil
			})
		}))
}

func newRebalance() *cobra.Command {
	var share float64
	var over time.Duration
	cmd := newCommand("rebalance NODE", "Ask a share of a node's clients to move to other nodes, one after the other",
		`Ask a share of a node's clients to move to other nodes, one after the other. Their sessions go on, and
no message is lost. For example, do that after another node has joined. A later order takes the place of
an earlier one.`, cobra.ExactArgs(1),
		func(ctx context.Context, c *call) error {
			if !(share >= 0 && share <= 1) {
				return cli.Usagef("--share %v must be 0 to 1", share)
			}
			if over < 0 || over > time.Hour {
				return cli.Usagef("--over %v must be 0 to 1h", over)
			}
			order := admin.RebalanceOrder{Node: c.args[0], Share: &share, Over: over.Seconds()}
			return c.give(ctx, "rebalance", order, func(answer []byte) (string, error) {
				var done admin.Rebalanced
				err := json.Unmarshal(answer, &done)
				if share == 0 {
					return fmt.Sprintf("node %s asks no more sessions to move", visible(c.args[0])), err
				}
				return fmt.Sprintf("node %s asks %d sessions to move, over %v; relay nodes shows how far it is", visible(c.args[0]), done.Moved, over), err
			})
		})
	cmd.Flags().Float64Var(&share, "share", 0.2, "the `part` of the clients that moves, 0 to 1; 0 ends a move")
	cmd.Flags().DurationVar(&over, "over", time.Minute, "how `long` that takes")
	return completeNodes(cmd)
}
