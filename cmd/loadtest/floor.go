package main

import (
	"net"

	"github.com/spf13/cobra"

	"distmsg/internal/cpus"
	"distmsg/loadtest"
	"distmsg/loadtest/floor"
)

// newFloor builds the command that runs the relay without features.
func newFloor(code *loadtest.ExitCode) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "floor",
		Short: "Run a relay without features: what a message costs at least",
		Long: `Run a relay without features: what a message costs at least.

It passes frames on by a number in their header, on the node's event loop and with its flush policy, and does nothing
else: no IDs, no outcomes, no limits, no security. compare starts it itself. It runs until Ctrl-C.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cpus.Spare(1)
			ctx, stop := interruptible()
			defer stop()
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				*code = loadtest.ExitUsage
				return err
			}
			say(cmd.ErrOrStderr(), "floor serves clients=%s\n", ln.Addr())
			if err := floor.Serve(ctx, ln); err != nil {
				*code = loadtest.ExitFailure
				return err
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address for clients (port 0: any free one)")
	return cmd
}
