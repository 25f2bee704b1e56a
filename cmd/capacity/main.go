// Command capacity estimates what a cluster needs for a number of connected IDs: nodes, Redis and
// network. See docs/capacity.md.
//
//	go run ./cmd/capacity --ids 1000000,10000000 --rate 0.5
package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/internal/capacity"
	"distmsg/internal/cli"
)

func main() { os.Exit(cli.Execute(newCommand(), os.Args[1:], os.Stderr)) }

func newCommand() *cobra.Command {
	ids := []float64{1e6, 10e6, 100e6}
	workload, costs, machine := capacity.Typical(0), capacity.Measured(), capacity.Common()
	cmd := &cobra.Command{
		Use:   "capacity",
		Short: "Estimate what a cluster needs for a number of connected IDs: nodes, Redis and network",
		Long: `Estimate what a cluster needs for a number of connected IDs: nodes, Redis and network. It multiplies
what was measured (docs/benchmarks.md) by what the clients do. Your own measurements replace the costs.`,
		Version: cli.Version(),
		Args:    cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) (err error) {
			cmd.Flags().VisitAll(func(f *pflag.Flag) {
				if number, e := cmd.Flags().GetFloat64(f.Name); e == nil && err == nil {
					err = check(f.Name, number)
				}
			})
			var workloads []capacity.Workload
			for _, n := range ids {
				if n < 1 {
					return cli.Usagef("--ids %v: want numbers of IDs", n)
				}
				w := workload
				w.IDs = n
				workloads = append(workloads, w)
			}
			if err != nil {
				return err
			}
			return capacity.Write(cmd.OutOrStdout(), workloads, costs, machine)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Float64SliceVar(&ids, "ids", ids, "connected `IDs`; a column for each number")
	addWorkload(f, &workload)
	addMachine(f, &machine)
	addCosts(f, &costs)
	return cmd
}

// mayBe0 are the flags that may be 0: something that the clients do not do.
var mayBe0 = map[string]bool{"rate": true, "payload": true, "misses": true, "watched": true, "routes": true}

func check(flag string, n float64) error {
	switch {
	case n < 0 || n == 0 && !mayBe0[flag]:
		return cli.Usagef("--%s %v must be over 0", flag, n)
	case n > 1 && (flag == "used" || flag == "misses"):
		return cli.Usagef("--%s %v: want a share, from 0 to 1", flag, n)
	}
	return nil
}

func addWorkload(f *pflag.FlagSet, w *capacity.Workload) {
	f.Float64Var(&w.MessageRate, "rate", w.MessageRate, "one ID sends `n` messages in a second, all with ack")
	f.Float64Var(&w.Payload, "payload", w.Payload, "`bytes` of a message")
	f.Float64Var(&w.Stay, "stay", w.Stay, "an ID is unbound after `seconds`, and another is bound")
	f.Float64Var(&w.Misses, "misses", w.Misses, "`share` of the messages between nodes whose receiver the node has to look up")
	f.Float64Var(&w.Watched, "watched", w.Watched, "`IDs` that are watched, for each connected one")
	f.Float64Var(&w.IDsPerSession, "per-session", w.IDsPerSession, "`IDs` that one app server holds")
	f.Float64Var(&w.VerifyPeriod, "verify-period", w.VerifyPeriod, "relay --verify-period, in `seconds`")
	f.Float64Var(&w.RoutesPerNode, "routes", w.RoutesPerNode, "cached `routes` of one node, at most")
}

func addMachine(f *pflag.FlagSet, m *capacity.Machine) {
	f.Float64Var(&m.Cores, "cores", m.Cores, "`cores` of a node")
	f.Float64Var(&m.Memory, "memory", m.Memory, "`bytes` of memory of a node")
	f.Float64Var(&m.Network, "network", m.Network, "network of a node, in `bits` a second each way")
	f.Float64Var(&m.Used, "used", m.Used, "`share` of all that may be used while all nodes run")
	f.Float64Var(&m.MaxIDs, "max-node-ids", m.MaxIDs, "relay --max-node-ids: `n` IDs")
	f.Float64Var(&m.MaxWatched, "max-node-watched", m.MaxWatched, "relay --max-node-watched: `n` IDs")
	f.Float64Var(&m.RedisMemory, "redis-memory", m.RedisMemory, "`bytes` of memory of one Redis master")
}

func addCosts(f *pflag.FlagSet, c *capacity.Costs) {
	f.Float64Var(&c.Message, "cost-message", c.Message, "CPU of a node for a message with ack, in `µs`")
	f.Float64Var(&c.Forward, "cost-forward", c.Forward, "CPU of both nodes for a message between them, as a `multiple` of that")
	f.Float64Var(&c.Connection, "cost-connection", c.Connection, "`bytes` of a node for a connection")
	f.Float64Var(&c.ID, "cost-id", c.ID, "`bytes` of a node for a bound ID")
	f.Float64Var(&c.Route, "cost-route", c.Route, "`bytes` of a node for a cached route")
	f.Float64Var(&c.WatchedID, "cost-watched", c.WatchedID, "`bytes` of a node for a watched ID")
	f.Float64Var(&c.Frame, "cost-frame", c.Frame, "`bytes` on the network for a frame, besides the payload")
	f.Float64Var(&c.RedisID, "cost-redis-id", c.RedisID, "`bytes` of Redis for a bound ID")
	f.Float64Var(&c.RedisBind, "cost-redis-bind", c.RedisBind, "CPU of Redis for a bind or unbind, in `µs`")
	f.Float64Var(&c.RedisLookup, "cost-redis-lookup", c.RedisLookup, "CPU of Redis for a lookup, in `µs`")
}
