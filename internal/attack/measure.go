package attack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"distmsg/internal/faults"
)

// Plan says how long the phases of a measurement last, and how the attack's numbers are scaled.
type Plan struct {
	Settle, Baseline, Attack, Recovery, After time.Duration
	Scale                                     float64
}

// The bounds of the effect on innocents, and the plan of a full measurement.
const (
	maxRefused = 0.01 // share of their operations
	maxSlower  = 3    // times the p99 of acked sends in the baseline,
	// or this, if it is more: the scheduling delays of a busy machine
	noise    = 10 * time.Millisecond
	maxHello = 500 * time.Millisecond // p99 of connect, hello, welcome
)

// Full is the plan of the table in docs/faults.md.
var Full = Plan{Settle: time.Second, Baseline: 3 * time.Second, Attack: 10 * time.Second,
	Recovery: 5 * time.Second, After: 3 * time.Second, Scale: 1}

// Row is the result of measuring one attack.
type Row struct {
	Name, What string
	Felt       *[phases]Felt
	Dropped    int    // connections of innocents
	Ledger     uint64 // faults
	// what the load test reports about its ledger and connections, if something is wrong
	LedgerWhy string
	Node      [phases]Used     // the greatest of any node, during the attack and after it
	Redis     [phases]Used     // the same; zero without Redis
	Takeovers float64          // of IDs a second, at all nodes, while they were attacked
	Contested int              // how many IDs the attacks fight over; 0: takeovers are not judged
	Lasted    time.Duration    // the attack
	Fenced    []string         // nodes that were fenced, or have ended
	Notes     []string         // other observations
	Attackers map[string]int64 // what the attackers did and heard
	Besides   error            // what failed of the actions during the attack
}

// Measure runs all attacks at once against an arena, and returns the effect on innocents. It closes
// neither. An error means that nothing could be measured.
func Measure(ctx context.Context, a *Arena, p Plan, attacks ...Attack) (*Row, error) {
	target := a.Target(p.Scale, p.Attack)
	row := &Row{}
	first := 0
	var names []string
	for _, attack := range attacks {
		names = append(names, attack.Name)
		first = max(first, attack.First)
		if attack.contested > 0 {
			row.Contested += target.n(attack.contested)
		}
	}
	row.Name = strings.Join(names, ", ")
	if len(attacks) == 1 {
		row.What = attacks[0].What
	}
	in, err := StartInnocents(ctx, target.Clients[first:], a.access)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	row.Felt = &in.felt
	faults.Pause(ctx, p.Settle)
	in.felt[Baseline].reset()
	in.before = in.snapshot().Outcomes
	faults.Pause(ctx, p.Baseline)

	in.Begin(Attacked)
	stop := a.watchAll()
	before, began := a.takeovers(ctx), time.Now()
	err = suffer(ctx, a, target, row, attacks)
	row.Lasted = time.Since(began)
	row.Takeovers = (a.takeovers(ctx) - before) / row.Lasted.Seconds()
	row.Node[Attacked], row.Redis[Attacked] = stop()
	if err != nil {
		a.note("%v", err)
	}
	in.Begin(Recovery)
	faults.Pause(ctx, p.Recovery)
	in.Begin(After)
	stop = a.watchAll()
	faults.Pause(ctx, p.After)
	row.Node[After], row.Redis[After] = stop()
	in.Close()
	a.noteFaults(ctx)
	row.judge(in, a)
	return row, errors.Join(in.failed, ctx.Err())
}

// suffer runs the attacks, and the actions that belong to them.
func suffer(ctx context.Context, a *Arena, t *Target, row *Row, attacks []Attack) error {
	var names []string
	besides := make(chan error, len(attacks))
	during, cancel := context.WithTimeout(ctx, t.Duration)
	defer cancel()
	for _, attack := range attacks {
		names = append(names, attack.Name)
		go func() {
			if attack.besides == nil {
				besides <- nil
				return
			}
			besides <- attack.besides(during, a)
		}()
	}
	attacker, err := StartAttacker(ctx, t, names...)
	if err == nil {
		row.Attackers, err = attacker.Wait(t.Duration)
	}
	for range attacks {
		row.Besides = errors.Join(row.Besides, <-besides)
	}
	return err
}

// judge records the results of the load test and the state of the nodes.
func (r *Row) judge(in *Innocents, a *Arena) {
	r.Dropped, r.Fenced, r.Notes = int(in.dropped.Load()), a.Fenced(), a.notes
	if in.report == nil {
		return
	}
	r.Dropped += int(in.report.LostConnections)
	r.Ledger = in.report.Faults.Total()
	if r.Ledger > 0 || len(in.report.Errors) > 0 {
		r.LedgerWhy = fmt.Sprintf("%+v %v", in.report.Faults, in.report.Errors)
	}
}

// Counts checks the bounds that other load on the machine cannot break. refused is the allowed
// share of refused operations. Each text begins with the name of a broken bound.
func (r *Row) Counts(refused float64) (bad []string) {
	if r.Dropped > 0 {
		bad = append(bad, fmt.Sprintf("dropped: %d connections", r.Dropped))
	}
	if r.Ledger > 0 {
		bad = append(bad, fmt.Sprintf("ledger: %s", r.LedgerWhy))
	}
	for p := Attacked; p < phases; p++ {
		if all, failed := r.Felt[p].total(); float64(failed) > refused*float64(all) {
			bad = append(bad, fmt.Sprintf("refused: %s: %d of %d (%s)", p, failed, all, r.Felt[p].failures()))
		}
	}
	for _, node := range r.Fenced {
		bad = append(bad, "node: "+node)
	}
	if r.Besides != nil {
		bad = append(bad, "nodes: "+r.Besides.Error())
	}
	if most := r.mostTakeovers(); r.Contested > 0 && r.Takeovers > most {
		bad = append(bad, fmt.Sprintf("takeovers: %.0f a second of %d IDs, at most %.0f are allowed", r.Takeovers, r.Contested, most))
	}
	if n := r.Attackers["sends with more than 2 outcomes"]; n > 0 {
		bad = append(bad, fmt.Sprintf("outcomes: %d sends had more than 2", n))
	}
	if n := r.Attackers[letIn]; n > 0 {
		bad = append(bad, fmt.Sprintf("logins: %d with wrong credentials were let in", n))
	}
	return bad
}

// mostTakeovers returns how many takeovers a second are allowed: for each ID the initial burst,
// then one in each interval, and a few more that wait at several nodes.
func (r *Row) mostTakeovers() float64 {
	const burst, waiting, interval = 8, 8, 250 * time.Millisecond
	return float64(r.Contested) * (burst + waiting + r.Lasted.Seconds()/interval.Seconds()) / r.Lasted.Seconds()
}

// Bounds checks all bounds. Counts checks some of them.
func (r *Row) Bounds() (bad []string) {
	bad = r.Counts(maxRefused)
	if most := max(r.Node[Attacked].RSS, r.Node[After].RSS); most > Budget {
		bad = append(bad, fmt.Sprintf("memory: %d MB of %d", most>>20, Budget>>20))
	}
	before, _ := r.Felt[Baseline].p99(opSend)
	for _, p := range []Phase{Attacked, After} {
		if now, _ := r.Felt[p].p99(opSend); now > max(maxSlower*before, noise) {
			bad = append(bad, fmt.Sprintf("p99: %s: %s, %.1f times the baseline", p, ms(now), float64(now)/float64(before)))
		}
		if hello, _ := r.Felt[p].p99(opHello); hello > maxHello {
			bad = append(bad, fmt.Sprintf("hello: %s: p99 %s", p, ms(hello)))
		}
	}
	return bad
}

func (p Phase) String() string {
	return [...]string{"baseline", "attack", "recovery", "after"}[p]
}

func ms(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// Header is the head of the table whose lines String returns.
const Header = `| attack | acked sends: before, during, after | refused: during, within 5 s, after | hello: p99, longest; after | bind, first message | dropped, faults | node; after | Redis; after | bounds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
`

// String is the row as a line of a table in Markdown.
func (r *Row) String() string {
	cells := []string{strings.TrimSuffix("**"+r.Name+"**: "+r.What, ": ")}
	var p99s, refused []string
	for _, p := range []Phase{Baseline, Attacked, After} {
		p99, _ := r.Felt[p].p99(opSend)
		p99s = append(p99s, ms(p99))
	}
	for _, p := range []Phase{Attacked, Recovery, After} {
		all, failed := r.Felt[p].total()
		refused = append(refused, fmt.Sprintf("%.1f %%", 100*float64(failed)/float64(max(1, all))))
	}
	if r.Contested > 0 {
		cells[0] += fmt.Sprintf(" (%.1f takeovers a second)", r.Takeovers)
	}
	hello, longest := r.Felt[Attacked].p99(opHello)
	helloAfter, _ := r.Felt[After].p99(opHello)
	bind, _ := r.Felt[Attacked].p99(opBind)
	message, _ := r.Felt[Attacked].p99(opFirst)
	node, redis, bounds := r.Node[Attacked].String()+"; "+r.Node[After].String(), "–", "kept"
	if r.Redis[After].RSS > 0 {
		redis = r.Redis[Attacked].String() + "; " + r.Redis[After].String()
	}
	if bad := r.Bounds(); len(bad) > 0 {
		for i := range bad {
			bad[i], _, _ = strings.Cut(bad[i], ":")
		}
		bounds = "not " + strings.Join(slices.Compact(slices.Sorted(slices.Values(bad))), ", ")
	}
	cells = append(cells, strings.Join(p99s, ", "), strings.Join(refused, ", "),
		fmt.Sprintf("%s, %s; %s", ms(hello), ms(longest), ms(helloAfter)), ms(bind)+", "+ms(message),
		fmt.Sprintf("%d, %d", r.Dropped, r.Ledger), node, redis, bounds)
	return "| " + strings.Join(cells, " | ") + " |\n"
}

// Details returns what the line omits: how operations failed, and what the attackers did.
func (r *Row) Details() string {
	var b strings.Builder
	for p := range r.Felt {
		all, failed := r.Felt[p].total()
		fmt.Fprintf(&b, "%s: %d operations, %d failed: %s\n", Phase(p), all, failed, r.Felt[p].failures())
		for _, op := range []string{opSend, opFirst, opBind, opLook, opHello} {
			p99, longest := r.Felt[p].p99(op)
			fmt.Fprintf(&b, "    %s p99 %s, max %s\n", op, ms(p99), ms(longest))
		}
	}
	b.WriteString("attackers:")
	for _, name := range slices.Sorted(maps.Keys(r.Attackers)) {
		fmt.Fprintf(&b, " %s %d;", name, r.Attackers[name])
	}
	if r.Contested > 0 {
		fmt.Fprintf(&b, " takeovers of %d IDs a second %.1f;", r.Contested, r.Takeovers)
	}
	fmt.Fprintf(&b, "\n%s %s", strings.Join(r.Notes, "; "), r.LedgerWhy)
	return b.String()
}
