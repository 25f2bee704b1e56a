package capacity

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
)

// column is one workload and its plan.
type column struct {
	w Workload
	p Plan
}

// row is one line of the table.
type row struct {
	what string
	text func(c column) string
}

var rows = []row{
	{"connected IDs", func(c column) string { return count(c.w.IDs) }},
	{"app servers", func(c column) string { return count(c.p.Sessions) }},
	{"messages/s", func(c column) string { return count(c.p.Messages) }},
	{"", nil},
	{"nodes, one of them spare", func(c column) string { return strconv.Itoa(c.p.Nodes) }},
	{"  because of", func(c column) string { return c.p.Limit }},
	{"  cores that work, all nodes", func(c column) string { return significant(c.p.Cores) }},
	{"  memory of a node", func(c column) string { return size(c.p.Memory) }},
	{"  network of a node, each way", func(c column) string { return count(c.p.In/1e6) + " Mbit/s" }},
	{"  messages/s between nodes", func(c column) string { return count(c.p.Forwards) }},
	{"  messages/s on one link", func(c column) string { return count(c.p.ByLink) }},
	{"", nil},
	{"Redis masters", func(c column) string { return strconv.Itoa(c.p.Masters) }},
	{"  because of", func(c column) string { return c.p.RedisLimit }},
	{"  cores that work", func(c column) string { return significant(c.p.RedisCores) }},
	{"  memory", func(c column) string { return size(c.p.RedisMemory) }},
	{"  binds and unbinds/s", func(c column) string { return count(c.p.Binds) }},
	{"  lookups/s for messages", func(c column) string { return count(c.p.Lookups) }},
	{"  lookups/s to verify", func(c column) string { return count(c.p.Verified) }},
	{"  lookups/s for watchers", func(c column) string { return count(c.p.Polled) }},
	{"  all bindings written again in", func(c column) string { return significant(c.p.Rebuild) + " s" }},
	{"a watcher hears within", func(c column) string {
		if c.p.News == 0 {
			return "-"
		}
		return significant(c.p.News) + " s"
	}},
	{"", nil},
	{"used most", use(0)},
	{"then", use(1)},
	{"then", use(2)},
}

func use(i int) func(c column) string {
	return func(c column) string {
		u := c.p.Next[i]
		return fmt.Sprintf("%s %.0f %%", u.What, 100*u.Share)
	}
}

// Write writes a table with a column for each workload.
func Write(to io.Writer, workloads []Workload, costs Costs, machine Machine) error {
	var columns []column
	for _, w := range workloads {
		p, err := Estimate(w, costs, machine)
		if err != nil {
			return fmt.Errorf("%s IDs: %w", count(w.IDs), err)
		}
		columns = append(columns, column{w, p})
	}
	table := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		line := r.what
		if r.text != nil {
			for _, c := range columns {
				line += "\t" + r.text(c)
			}
		}
		if _, err := fmt.Fprintln(table, line); err != nil {
			return err
		}
	}
	return table.Flush()
}

// count writes a number with two digits or three and a unit.
func count(n float64) string {
	for _, u := range []struct {
		name string
		of   float64
	}{{" billion", 1e9}, {" million", 1e6}, {",000", 1e3}} {
		if n < u.of {
			continue
		}
		if u.of == 1e3 && n < 1e4 {
			break // 1,500 would be 2,000
		}
		return significant(n/u.of) + u.name
	}
	if n >= 1e3 {
		hundreds := int(math.Round(n / 100))
		return fmt.Sprintf("%d,%d00", hundreds/10, hundreds%10)
	}
	return significant(n)
}

// significant writes a number below 1,000, or a small share of one.
func significant(n float64) string {
	switch {
	case n == 0 || n >= 10:
		return strconv.FormatFloat(n, 'f', 0, 64)
	case n >= 1:
		return strconv.FormatFloat(math.Round(n*10)/10, 'f', -1, 64)
	}
	return strconv.FormatFloat(n, 'g', 1, 64)
}

// size writes bytes.
func size(bytes float64) string {
	if bytes >= 1<<30 {
		return significant(bytes/(1<<30)) + " GiB"
	}
	return significant(bytes/(1<<20)) + " MiB"
}
