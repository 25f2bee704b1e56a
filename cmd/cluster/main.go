// Command cluster runs a whole cluster on this machine for experiments: redis-server, ZooKeeper and
// relay nodes.
//
//	go run ./cmd/cluster
//
// It needs the Debian packages redis-server and zookeeper, and the go command, with which it builds
// relay. It restarts processes that die. When it ends, all its processes end with it, and it leaves
// no files.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"distmsg/internal/cli"
)

func main() { os.Exit(cli.Execute(newCommand(), os.Args[1:], os.Stderr)) }

// options are the flags.
type options struct {
	nodes                 int
	port                  int
	redisPort, keeperPort int
	logs                  bool
	relayFlags            []string // those after --
}

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:     "cluster [flags] [-- flags of relay]",
		Short:   "A cluster on this machine: redis-server, ZooKeeper and relay nodes, until Ctrl-C",
		Version: cli.Version(),
		RunE: cli.RunE(func(cmd *cobra.Command, args []string) error {
			ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
			if !signal.Ignored(syscall.SIGHUP) { // nohup
				ends = append(ends, syscall.SIGHUP) // the terminal is closed
			}
			ctx, stop := signal.NotifyContext(context.Background(), ends...)
			defer stop()
			// a second Ctrl-C ends cluster at once; the kernel then kills the other processes
			context.AfterFunc(ctx, stop)
			o.relayFlags = args
			return run(ctx, o, cmd.OutOrStdout())
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVar(&o.nodes, "nodes", 3, "run `n` relay nodes")
	f.IntVar(&o.port, "port", 7400, "`port` of the first node for clients; the next is for HTTP, and the one after it for other nodes. The second node's ports are higher by 10, and so on")
	f.IntVar(&o.redisPort, "redis-port", 7379, "`port` of redis-server")
	f.IntVar(&o.keeperPort, "zookeeper-port", 7381, "`port` of ZooKeeper; 0 picks free ports, for each of the three flags")
	f.BoolVar(&o.logs, "logs", false, "show the nodes' logs; each line begins with the name of its node")
	return cmd
}

// run runs a cluster until ctx ends.
func run(ctx context.Context, o options, out io.Writer) error {
	if o.nodes < 1 || o.nodes > 100 {
		return cli.Usagef("--nodes %d: want 1 to 100", o.nodes)
	}
	c := &cluster{out: out}
	if err := c.start(ctx, o); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C while it was starting
		}
		return err
	}
	defer c.Close()
	c.greet()
	c.watch(ctx)
	c.say("stopping; the nodes drain")
	return c.Stop()
}
