package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"distmsg/engine"
	"distmsg/internal/cli"
)

const tellsAll = " Any node answers for the whole cluster. Nodes that do not\nanswer in time are listed below, and the exit code is then 7."

func newNodes() *cobra.Command {
	return newCommand("nodes", "List the nodes: state, load, links, and what they lack",
		"List the nodes: state, load, links, and what they lack."+tellsAll, cobra.NoArgs,
		func(ctx context.Context, c *call) error {
			asked, err := list(ctx, c, "nodes", nil, nodeColumns)
			if c.json {
				return err
			}
			for _, n := range asked.Answers {
				for _, line := range n.Degraded {
					fmt.Fprintf(c.out, "%s: %s\n", visible(n.Node), visible(line))
				}
			}
			return err
		})
}

var nodeColumns = []column[engine.NodeInfo]{
	{"NODE", func(n engine.NodeInfo) string { return n.Node }},
	{"STATE", nodeState},
	{"UP", func(n engine.NodeInfo) string { return ageText(n.UptimeSeconds) }},
	{"CONNS", func(n engine.NodeInfo) string { return strconv.Itoa(n.Conns) }},
	{"SESSIONS", func(n engine.NodeInfo) string { return strconv.Itoa(n.Sessions) }},
	{"IDS", func(n engine.NodeInfo) string { return strconv.Itoa(n.IDs) }},
	{"PENDING", func(n engine.NodeInfo) string { return strconv.Itoa(n.Pending) }},
	{"LINKS", linksUp},
	{"MEMORY", func(n engine.NodeInfo) string { return sizeText(n.MemoryHeld) + " of " + sizeText(n.MemoryBudget) }},
	{"LACKS", func(n engine.NodeInfo) string { return counted(len(n.Degraded)) }},
	{"CLIENTS AT", func(n engine.NodeInfo) string { return n.Addr }},
	{"VERSION", func(n engine.NodeInfo) string { return n.Version }},
}

// nodeState is the state of a node, and how far its rebalance is.
func nodeState(n engine.NodeInfo) string {
	state := string(n.State)
	if r := n.Rebalance; r != nil && !r.Done && r.Chosen > 0 {
		state += fmt.Sprintf(" (moves %d of %d)", r.Asked, r.Chosen)
	}
	return state
}

// linksUp says how many of a node's links are up.
func linksUp(n engine.NodeInfo) string {
	if len(n.Links) == 0 {
		return ""
	}
	up := 0
	for _, l := range n.Links {
		if l.Up {
			up++
		}
	}
	return fmt.Sprintf("%d of %d", up, len(n.Links))
}

// counted is a number, or empty for none.
func counted(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func newSessions() *cobra.Command {
	var slowest, limit int
	var identity string
	cmd := newCommand("sessions", "List sessions of clients",
		"List sessions of clients. With --slowest, those with the most bytes that they have not read."+tellsAll, cobra.NoArgs,
		func(ctx context.Context, c *call) error {
			query, err := limited(limit)
			switch {
			case err != nil:
				return err
			case slowest < 0:
				return cli.Usagef("--slowest %d must be over 0", slowest)
			case slowest > 0:
				query.Set("slowest", strconv.Itoa(slowest))
			}
			if identity != "" {
				query.Set("identity", identity)
			}
			_, err = list(ctx, c, "sessions", query, sessionColumns)
			return err
		})
	cmd.Flags().IntVar(&slowest, "slowest", 0, "only the `n` slowest of each node: with most bytes queued, and of equals those silent for longest")
	cmd.Flags().StringVar(&identity, "identity", "", "only those of the identity of this `name`")
	addLimit(cmd, &limit)
	return cmd
}

func addLimit(cmd *cobra.Command, limit *int) {
	cmd.Flags().IntVar(limit, "limit", 0, "at most `n` of each node, up to 10000 (default 100)")
}

// limited returns the parameters of a question with that --limit.
func limited(limit int) (url.Values, error) {
	query := make(url.Values)
	switch {
	case limit < 0:
		return nil, cli.Usagef("--limit %d must be over 0", limit)
	case limit > 0:
		query.Set("limit", strconv.Itoa(limit))
	}
	return query, nil
}

var sessionColumns = []column[engine.SessionInfo]{
	{"SESSION", func(s engine.SessionInfo) string { return s.Session }},
	{"IDENTITY", func(s engine.SessionInfo) string { return s.Identity }},
	{"NODE", func(s engine.SessionInfo) string { return s.Node }},
	{"REMOTE", func(s engine.SessionInfo) string {
		if !s.Attached {
			return "gone, may resume"
		}
		return strings.Join(s.Remotes, ",")
	}},
	{"IDS", func(s engine.SessionInfo) string { return strconv.Itoa(s.IDs) }},
	{"QUEUED", func(s engine.SessionInfo) string { return sizeText(s.QueuedBytes) }},
	{"PENDING", func(s engine.SessionInfo) string { return strconv.Itoa(s.Pending) }},
	{"SILENT", func(s engine.SessionInfo) string { return ageText(s.SilentSeconds) }},
	{"AGE", func(s engine.SessionInfo) string { return ageText(s.AgeSeconds) }},
	{"TLS", func(s engine.SessionInfo) string { return s.TLS }},
}

func newConns() *cobra.Command {
	var limit int
	cmd := newCommand("conns", "List connections of clients", "List connections of clients."+tellsAll, cobra.NoArgs,
		func(ctx context.Context, c *call) error {
			query, err := limited(limit)
			if err != nil {
				return err
			}
			_, err = list(ctx, c, "conns", query, connColumns)
			return err
		})
	addLimit(cmd, &limit)
	return cmd
}

var connColumns = []column[engine.ConnInfo]{
	{"CONN", func(i engine.ConnInfo) string { return i.Conn }},
	{"NODE", func(i engine.ConnInfo) string { return i.Node }},
	{"LOOP", func(i engine.ConnInfo) string { return strconv.Itoa(i.Loop) }},
	{"STATE", func(i engine.ConnInfo) string { return i.State }},
	{"SESSION", func(i engine.ConnInfo) string { return i.Session }},
	{"IDENTITY", func(i engine.ConnInfo) string { return i.Identity }},
	{"REMOTE", func(i engine.ConnInfo) string { return i.Remote }},
	{"QUEUED", func(i engine.ConnInfo) string { return sizeText(i.QueuedBytes) }},
	{"PENDING", func(i engine.ConnInfo) string { return strconv.Itoa(i.Pending) }},
	{"SILENT", func(i engine.ConnInfo) string { return ageText(i.SilentSeconds) }},
	{"AGE", func(i engine.ConnInfo) string { return ageText(i.AgeSeconds) }},
	{"TLS", func(i engine.ConnInfo) string { return i.TLS }},
}

func newLinks() *cobra.Command {
	return newCommand("links", "List the links between the nodes, seen from both ends",
		"List the links between the nodes, seen from both ends."+tellsAll, cobra.NoArgs,
		func(ctx context.Context, c *call) error {
			_, err := list(ctx, c, "links", nil, linkColumns)
			return err
		})
}

var linkColumns = []column[engine.LinkInfo]{
	{"NODE", func(l engine.LinkInfo) string { return l.Node }},
	{"PEER", func(l engine.LinkInfo) string { return l.Peer }},
	{"STATE", func(l engine.LinkInfo) string {
		if l.Up {
			return "up"
		}
		return strings.TrimSuffix("down: "+l.Why, ": ")
	}},
	{"LISTED", func(l engine.LinkInfo) string { return yesNo(l.Listed) }},
	{"REMOTE", func(l engine.LinkInfo) string { return l.Remote }},
	{"DIALLED", func(l engine.LinkInfo) string { return yesNo(l.Dialled) }},
	{"QUEUED", func(l engine.LinkInfo) string { return sizeText(l.QueuedBytes) }},
	{"SILENT", func(l engine.LinkInfo) string { return ageText(l.SilentSeconds) }},
	{"AGE", func(l engine.LinkInfo) string { return ageText(l.AgeSeconds) }},
	{"TLS", func(l engine.LinkInfo) string { return l.TLS }},
}

func newIDs() *cobra.Command {
	var limit int
	cmd := newCommand("ids SESSION", "List the IDs that a session has bound",
		"List the IDs that a session has bound. relay sessions and relay where name sessions."+tellsAll, cobra.ExactArgs(1),
		func(ctx context.Context, c *call) error {
			query, err := limited(limit)
			if err != nil {
				return err
			}
			query.Set("session", c.args[0])
			asked, err := list(ctx, c, "ids", query, idColumns)
			if err == nil && len(asked.Answers) == 0 {
				return errors.New("no session of this name has an ID")
			}
			return err
		})
	addLimit(cmd, &limit)
	return cmd
}

var idColumns = []column[engine.IDInfo]{
	{"ID", func(i engine.IDInfo) string { return i.ID }},
	{"NODE", func(i engine.IDInfo) string { return i.Node }},
	{"EPOCH", func(i engine.IDInfo) string { return strconv.FormatUint(i.Epoch, 10) }},
	{"SESSION", func(i engine.IDInfo) string { return i.Session }},
}

// sortSlowest sorts sessions as --slowest chooses them.
func sortSlowest(sessions []engine.SessionInfo) {
	slices.SortStableFunc(sessions, func(a, b engine.SessionInfo) int {
		return cmp.Or(cmp.Compare(b.QueuedBytes, a.QueuedBytes), cmp.Compare(b.SilentSeconds, a.SilentSeconds))
	})
}
