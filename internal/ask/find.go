package ask

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"distmsg/engine"
)

func newWhere() *cobra.Command {
	return newCommand("where ID...", "Say which session and node has an ID, by the registry and by each node",
		`Say which session and node has an ID, by the registry and by each node. A node has the IDs of its own
sessions in a table, and caches routes to others. If one of them believes something else than the
registry, the last column says so; that is right for an instant while an ID moves. A node that is not
in the list knows nothing of the ID, and asks the registry when it has a message for it.`, cobra.MinimumNArgs(1),
		func(ctx context.Context, c *call) error {
			var found engine.Asked[engine.WhereInfo]
			printed, err := c.question(ctx, "where", url.Values{"id": c.args}, &found)
			if err != nil || printed {
				return either(err, incomplete(len(found.Missing)))
			}
			var rows []saying
			for _, w := range found.Answers {
				rows = append(rows, sayings(w)...)
			}
			if err := writeTable(c.out, sayingColumns, rows); err != nil {
				return err
			}
			return c.printMissing(found.Missing)
		})
}

// saying is what the registry or a node says of an ID.
type saying struct{ id, who, state, session, nodes, epoch, note string }

var sayingColumns = []column[saying]{
	{"ID", func(s saying) string { return s.id }},
	{"SAYS", func(s saying) string { return s.who }},
	{"STATE", func(s saying) string { return s.state }},
	{"SESSION", func(s saying) string { return s.session }},
	{"AT", func(s saying) string { return s.nodes }},
	{"EPOCH", func(s saying) string { return s.epoch }},
	{"DIFFERS", func(s saying) string { return s.note }},
}

// sayings returns what everybody says of an ID, the registry first.
func sayings(w engine.WhereInfo) []saying {
	all := []saying{{w.ID, "registry", whereText(w.State), w.Session, strings.Join(w.Nodes, ","), epochText(w.Epoch), ""}}
	for _, b := range w.Beliefs {
		s := saying{id: w.ID, who: b.Node, note: b.Differs}
		for _, known := range []struct {
			state string
			as    *engine.Believed
		}{{"has it", b.Table}, {"has a route", b.Route}} {
			if known.as != nil {
				s.state, s.session, s.nodes, s.epoch = known.state, known.as.Session, strings.Join(known.as.Nodes, ","), epochText(known.as.Epoch)
				break
			}
		}
		all = append(all, s)
	}
	return all
}

func whereText(s engine.WhereState) string { return strings.ReplaceAll(string(s), "_", " ") }

func epochText(epoch uint64) string {
	if epoch == 0 {
		return ""
	}
	return strconv.FormatUint(epoch, 10)
}

func newTrace() *cobra.Command {
	return newCommand("trace FROM TO", "Send a dry run from one ID to another, and show what each node decides",
		`Send a dry run from one ID to another over the path of a message, and show what each node decides, and
when. The receiver's handler is not called: its SDK answers.`, cobra.ExactArgs(2),
		func(ctx context.Context, c *call) error {
			var trace engine.TraceInfo
			printed, err := c.question(ctx, "trace", url.Values{"from": c.args[:1], "to": c.args[1:]}, &trace)
			if err != nil || printed {
				return either(err, incomplete(len(trace.Missing)))
			}
			fmt.Fprintf(c.out, "%s -> %s: %s after %s\n", visible(trace.From), visible(trace.To), visible(trace.Code), ageText(trace.TotalSeconds))
			if err := writeTable(c.out, hopColumns, trace.Hops); err != nil {
				return err
			}
			return c.printMissing(trace.Missing)
		})
}

var hopColumns = []column[engine.TraceHop]{
	{"AT", func(h engine.TraceHop) string { return ageText(h.AtSeconds) }},
	{"TOOK", func(h engine.TraceHop) string { return ageText(h.TookSeconds) }},
	{"NODE", func(h engine.TraceHop) string { return h.Node }},
	{"STEP", func(h engine.TraceHop) string { return h.Step }},
	{"DECISION", func(h engine.TraceHop) string { return h.Decision }},
	{"CODE", func(h engine.TraceHop) string { return cmp.Or(h.Code, h.Returned) }},
}

func newWatch() *cobra.Command {
	return newCommand("watch ID...", "Show who has some IDs, and each change, until Ctrl-C",
		`Show who has some IDs, and each change, until Ctrl-C. An ID that changes often skips states. With
--json, each line is one event.`, cobra.MinimumNArgs(1),
		func(ctx context.Context, c *call) error {
			ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
			defer stop()
			return c.stream(ctx, "watch", url.Values{"id": c.args}, func(event []byte) error {
				if c.json {
					_, err := fmt.Fprintf(c.out, "%s\n", event)
					return err
				}
				var e engine.WatchEvent
				if err := json.Unmarshal(event, &e); err != nil {
					return fmt.Errorf("an event cannot be read: %w", err)
				}
				_, err := fmt.Fprintln(c.out, eventText(e))
				return err
			})
		})
}

// eventText is one line about an event.
func eventText(e engine.WatchEvent) string {
	text := fmt.Sprintf("%s  %s  %s", e.At.Local().Format(time.TimeOnly), visible(e.ID), whereText(e.State))
	if e.State == engine.WhereBound {
		text += fmt.Sprintf("  session %s at %s, epoch %d", visible(e.Session), visible(strings.Join(e.Nodes, ",")), e.Epoch)
	}
	if e.Disagree {
		text += "  (a node believes something else: relay where)"
	}
	return text
}
