package faults

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"distmsg/loadtest"
)

var full = flag.Bool("faults.full", false, "prove everything, which takes minutes, and not only the short set")

func TestMain(m *testing.M) {
	flag.Parse()
	// gnet starts the goroutines of its worker pool when it is imported
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// patience bounds a proof, whatever happens in it.
const patience = 3 * time.Minute

// proof is one fault on its way.
type proof struct {
	*testing.T
	*Findings
	ctx context.Context
	c   *Cluster

	load *Load
}

// besides lets a test run beside others: it waits most of the time, and its servers are its own.
// With -faults.full, which measures, there is one at a time.
func besides(t *testing.T) {
	if !*full {
		t.Parallel()
	}
}

// TestFaults proves what semantics.md promises for when things break. -run TestFaults/NAME selects.
func TestFaults(t *testing.T) {
	besides(t)
	for _, fault := range []struct {
		name  string
		short bool // belongs to the short set
		nodes Options
		prove func(*proof)
	}{
		{"kill", true, Options{Nodes: 3}, kill},
		{"rolling", true, Options{Nodes: 3}, rolling},
		{"redis-empty", true, Options{Nodes: 3}, redisEmpty},
		{"redis-old", true, Options{Nodes: 3, Flags: []string{"--verify-period=2s", "--resume-window=2s"}}, redisOld},
		{"redis-old-slow", false, Options{Nodes: 3, Flags: []string{"--verify-period=30s"}}, redisOld},
		{"redis-clock", true, Options{Nodes: 3, Clock: true}, redisClock},
		{"redis-no-writes", true, Options{Nodes: 3}, redisNoWrites},
		{"silence", true, Options{Nodes: 3, Apart: true, Flags: []string{"--resume-window", silenceWindow.String()}}, silence},
		{"bye", true, Options{Nodes: 3}, bye},
		{"redis-settings", false, Options{Nodes: 3}, redisSettings},
		{"twin", true, Options{Nodes: 3}, twin},
		{"other-redis", true, Options{Nodes: 3}, otherRedis},
		{"stuck-stderr", true, Options{Nodes: 3}, stuckStderr},
		{"denied", true, Options{Nodes: 3}, denied},
		{"unbound", true, Options{Nodes: 3}, unbound},
		{"stop", false, Options{Nodes: 3}, stop},
		{"redis-stop", false, Options{Nodes: 3}, redisStop},
		{"zookeeper-down", false, Options{Nodes: 3}, zooKeeperDown},
		{"zookeeper-silent", false, Options{Nodes: 3}, zooKeeperSilent},
		{"dns-kill", true, Options{Nodes: 3, DNS: true}, kill},
		{"dns-stop", false, Options{Nodes: 3, DNS: true}, stop},
		{"dns-away", false, Options{Nodes: 3, DNS: true}, dnsAway},
		{"dns-wrong", false, Options{Nodes: 3, DNS: true}, dnsWrong},
		{"dns-new", true, Options{Nodes: 3, DNS: true}, dnsNew},
		{"dns-dead", false, Options{Nodes: 3, DNS: true}, dnsDead},
		{"many", false, Options{Nodes: 3}, many},
		{"partition", false, Options{Nodes: 3, Apart: true}, partition},
	} {
		t.Run(fault.name, func(t *testing.T) {
			if !fault.short && !*full {
				t.Skip("not in the short set: -faults.full")
			}
			besides(t)
			begin(t, fault.name, fault.nodes, fault.prove)
		})
	}
}

// begin starts a cluster with a load, and runs a proof on it.
func begin(t *testing.T, name string, nodes Options, prove func(*proof)) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p := &proof{T: t, Findings: NewFindings(name), ctx: ctx}
	c, err := Start(ctx, nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
	}()
	p.c = c
	if p.load, err = StartLoad(ctx, c); err != nil {
		t.Fatal(err)
	}
	defer p.load.Stop()
	prove(p)
	p.judge()
}

// judge ends the load and asks the ledger.
func (p *proof) judge() {
	p.Helper()
	report, err := p.load.Stop()
	p.check(err)
	p.Ledger(report)
	stall, err := p.c.LongestStall(p.ctx)
	p.check(err)
	if p.fault == "zookeeper-down" || p.fault == "zookeeper-silent" {
		p.Stall(stall)
	} else {
		p.Logf("longest loop stall of nodes that live: %v", stall)
	}
	p.Logf("lost connections %d, told to leave %d", report.LostConnections, report.Drains)
	if l := report.Latency; l != nil {
		p.Logf("latency of acked: p50 %s, p99 %s, max %s", l.P50, l.P99, l.Max)
	}
	p.Logf("\n%s", p.Findings)
	if err := p.Err(); err != nil {
		p.Error(err)
	}
}

func (p *proof) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// users connects some to a node, until the proof ends.
func (p *proof) users(node int, cfg UsersConfig) *Users {
	p.Helper()
	u, err := Connect(p.ctx, p.c.Nodes[node].Addr, cfg)
	p.check(err)
	p.Cleanup(u.Close)
	return u
}

// reach is how long it takes from begin until u has reached all IDs.
func (p *proof) reach(u *Users, ids []string, begin time.Time) time.Duration {
	p.Helper()
	outcomes, err := u.Reach(p.ctx, ids)
	p.check(err)
	p.Logf("tries to reach %d IDs ended: %s", len(ids), counts(outcomes))
	return time.Since(begin)
}

// talk sends to the IDs, one message at a time, until the function that it returns is called, which
// returns how they ended.
func (p *proof) talk(u *Users, ids []string) (end func() map[string]uint64) {
	ctx, cancel := context.WithCancel(p.ctx)
	var tally Tally
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.Talk(ctx, ids, &tally)
	}()
	end = func() map[string]uint64 {
		cancel()
		<-done
		return tally.Counts()
	}
	p.Cleanup(func() { end() })
	return end
}

// suffer lets a fault last.
func (p *proof) suffer(d time.Duration) { Pause(p.ctx, d) }

const waiting = 100 // sends that wait for an ack when their receiver's node dies

func kill(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	silent := p.users(0, UsersConfig{Name: "silent", Sessions: 1, PerUser: waiting, Silent: true})
	victims := p.users(0, UsersConfig{Name: "victim", Sessions: 20, PerUser: 10})
	p.reach(sender, victims.IDs, time.Now())
	wait, err := sender.SendToSilent(p.ctx, silent, waiting)
	p.check(err)

	died := time.Now()
	p.c.Nodes[0].Kill()
	wait.Heard()
	p.Within("waiting senders have heard", time.Second, time.Since(died))
	p.Outcomes("what they heard", wait.Counts(), "lost", "unreachable")
	p.Within("its sessions deliver again", 3*time.Second, p.reach(sender, victims.IDs, died))
	p.Count("kicks", 0, victims.Kicks())
	p.check(p.c.Nodes[0].Restart(p.ctx))
	p.check(p.c.WaitLinked(p.ctx))
}

// denied kills a node while every connection has messages under way to other nodes: its sessions go
// on sending elsewhere at once, from IDs that are theirs. That they are is what the ledgers know
// (false_denied).
func denied(p *proof) {
	times := 1
	if *full {
		times = 4
	}
	drivers := []loadtest.Driver{loadtest.DriverRelay, loadtest.DriverSDK}
	var loads []*Load
	for _, driver := range drivers {
		crossing, err := StartCrossing(p.ctx, p.c, driver)
		p.check(err)
		defer crossing.Stop()
		loads = append(loads, crossing)
	}
	for range times {
		p.suffer(time.Second)
		p.c.Nodes[0].Kill()
		p.suffer(2 * time.Second)
		p.check(p.c.Nodes[0].Restart(p.ctx))
		p.check(p.c.WaitLinked(p.ctx))
	}
	for i, driver := range drivers {
		report, err := loads[i].Stop()
		p.check(err)
		p.LedgerOf("ledger of the crossing load, driver "+string(driver), report)
		p.Count("denied, driver "+string(driver), 0, int(report.Outcomes["denied"]))
	}
}

// unbound lets nodes remember ways to IDs that are then unbound, or bound by somebody else. The
// client that held them takes whatever comes.
func unbound(p *proof) {
	const n = 100
	ids := func(name string) (list []string) {
		for k := range n {
			list = append(list, fmt.Sprintf("%s-0-%d", name, k))
		}
		return list
	}
	gone, moved, kept := ids("gone"), ids("moved"), ids("kept")
	all := slices.Concat(gone, moved, kept)
	taker, err := Take(p.ctx, p.c.Nodes[0].Addr, all...)
	p.check(err)
	defer taker.Close()
	senders := []*Users{p.users(1, UsersConfig{Name: "near", Sessions: 1, PerUser: 1}), p.users(2, UsersConfig{Name: "far", Sessions: 1, PerUser: 1})}
	for _, u := range senders {
		// Until the rebuild window of the new Redis is over, what it does not name is not known.
		for u.Send(p.ctx, "nobody", sendTTL) != "no_route" {
			if !Pause(p.ctx, lookEvery) {
				p.Fatal("nobody says no_route of an ID that was never bound")
			}
		}
		p.reach(u, all, time.Now())
	}

	near, far := p.talk(senders[0], gone), p.talk(senders[1], gone)
	p.suffer(time.Second / 2)
	p.check(taker.Unbind(gone...))
	p.suffer(time.Second / 2)
	p.Outcomes("to IDs that are being unbound", near(), "acked", "no_route")
	p.Outcomes("to them, from another node", far(), "acked", "no_route")
	for _, u := range senders {
		p.Outcomes("to unbound IDs", u.SendEach(p.ctx, gone), "no_route")
		p.Outcomes("to unbound IDs, a multicast", u.SendAll(p.ctx, gone), "no_route")
	}

	p.users(2, UsersConfig{Name: "moved", Sessions: 1, PerUser: n})
	for taker.Lost() < len(gone)+len(moved) {
		if !Pause(p.ctx, pollEvery) {
			p.Fatalf("%d IDs have been lost", taker.Lost())
		}
	}
	before := taker.Taken()
	for _, u := range senders {
		p.Outcomes("to kicked IDs", u.SendEach(p.ctx, moved), "acked")
		p.Outcomes("to kicked IDs, a multicast", u.SendAll(p.ctx, moved), "acked")
	}
	p.Count("messages that their former holder got", 0, taker.Taken()-before)
	p.Outcomes("to IDs that it kept", senders[0].SendEach(p.ctx, kept), "acked")
	p.Count("deliveries after unbound, or a kick", 0, taker.Late())
	p.check(taker.Close())
}

// rolling restarts all nodes, one by one.
func rolling(p *proof) {
	begin := time.Now()
	for _, node := range p.c.Nodes {
		p.check(node.Stop())
		p.Count("exit code of "+node.Addr, 0, node.Wait())
		p.check(node.Restart(p.ctx))
		p.check(p.c.WaitLinked(p.ctx))
	}
	p.Logf("restarted %d nodes in %v", len(p.c.Nodes), time.Since(begin).Round(time.Millisecond))
	report, err := p.load.Stop()
	p.check(err)
	p.Outcomes("acked sends", report.Outcomes, "acked")
}

// redisEmpty kills Redis and brings it back with nothing in it.
func redisEmpty(p *proof) {
	n := 10_000
	if *full {
		n = 100_000
	}
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	known := p.users(0, UsersConfig{Name: "known", Sessions: 1, PerUser: 10})
	many := p.users(0, UsersConfig{Name: "many", Sessions: 10, PerUser: n / 10})
	p.reach(sender, known.IDs, time.Now())

	talk := p.talk(sender, known.IDs)
	// another node than sender's, which knows them all
	unknown := p.talk(p.users(2, UsersConfig{Name: "asker", Sessions: 1, PerUser: 1}), many.IDs)
	p.c.Redis.Kill()
	p.suffer(2 * time.Second)
	p.check(p.c.Redis.Restart(p.ctx))
	back := time.Now()
	p.bound("many-", len(many.IDs))
	p.Within("all bindings are back", 15*time.Second, time.Since(back))
	p.Outcomes("to known routes", talk(), "acked")
	p.Outcomes("to IDs to be looked up", unknown(), "acked", "registry_unavailable")
}

// bound waits until Redis has n bindings of IDs that begin so. It looks at Redis itself: a registry
// of our own would take part in finding and mending the loss.
func (p *proof) bound(prefix string, n int) {
	p.Helper()
	const count = `local n = 0
		for _, bucket in ipairs(redis.call("KEYS", "distmsg:*:[bl]:*")) do
			for _, id in ipairs(redis.call("HKEYS", bucket)) do
				if id:sub(1, #ARGV[1]) == ARGV[1] then n = n + 1 end
			end
		end
		return n`
	for {
		got, err := p.c.Redis.Do(p.ctx, "EVAL", count, "0", prefix)
		if err == nil && got == strconv.Itoa(n) {
			return
		}
		if !Pause(p.ctx, lookEvery) {
			p.Fatalf("%s of %d bindings are back: %v", got, n, err)
		}
	}
}

const lookEvery = 200 * time.Millisecond // at what costs Redis something to answer

// stop stops a node for 10 s, with SIGSTOP.
func stop(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	silent := p.users(0, UsersConfig{Name: "silent", Sessions: 1, PerUser: waiting, Silent: true})
	victims := p.users(0, UsersConfig{Name: "victim", Sessions: 20, PerUser: 10})
	p.reach(sender, victims.IDs, time.Now())
	wait, err := sender.SendToSilent(p.ctx, silent, waiting)
	p.check(err)

	stopped := time.Now()
	p.check(p.c.Nodes[0].Pause())
	wait.Heard()
	p.Within("detected: waiting senders have heard", 3*time.Second, time.Since(stopped))
	p.Outcomes("what they heard", wait.Counts(), "lost", "unreachable")
	p.Logf("its sessions deliver again after %v", p.reach(sender, victims.IDs, stopped).Round(time.Millisecond))
	p.suffer(time.Until(stopped.Add(10 * time.Second)))
	p.check(p.c.Nodes[0].Resume())
	p.check(p.c.WaitLinked(p.ctx))
	late := p.talk(sender, victims.IDs)
	p.suffer(3 * time.Second)
	p.Outcomes("to its sessions, awake again", late(), "acked")
	p.Count("kicks", 0, victims.Kicks())
}

// redisStop stops Redis for 20 s, with SIGSTOP.
func redisStop(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	known := p.users(0, UsersConfig{Name: "known", Sessions: 1, PerUser: 10})
	fresh := p.users(0, UsersConfig{Name: "fresh", Sessions: 1, PerUser: 1000})
	asker := p.users(2, UsersConfig{Name: "asker", Sessions: 1, PerUser: 1})
	p.reach(sender, known.IDs, time.Now())

	p.check(p.c.Redis.Pause())
	talk := p.talk(sender, known.IDs)
	unknown := p.talk(asker, fresh.IDs)
	p.suffer(20 * time.Second)
	p.Outcomes("to known routes", talk(), "acked")
	p.Outcomes("to IDs to be looked up", unknown(), "registry_unavailable")
	p.check(p.c.Redis.Resume())
	p.Logf("all looked up again after %v", p.reach(asker, fresh.IDs, time.Now()).Round(time.Millisecond))
}

// zooKeeperDown stops ZooKeeper for 30 s.
func zooKeeperDown(p *proof) {
	p.c.ZooKeeper.Kill()
	p.suffer(30 * time.Second)
	p.check(p.c.ZooKeeper.Restart(p.ctx))
	p.registered(time.Now())
}

// zooKeeperSilent lets ZooKeeper accept connections and be silent, for longer than the nodes'
// sessions there live.
func zooKeeperSilent(p *proof) {
	before, err := p.c.Registrations(p.ctx)
	p.check(err)
	p.check(p.c.ZooKeeper.Pause())
	p.suffer(15 * time.Second)
	p.check(p.c.ZooKeeper.Resume())
	after := p.registered(time.Now())
	p.Count("sessions of nodes that had expired", len(p.c.Nodes), len(missing(before, after)))
}

// registered notes when the sessions by which ZooKeeper lists the nodes were all there, and returns
// them. They are those that still are there when everything that died with the fault has expired.
func (p *proof) registered(back time.Time) []string {
	p.Helper()
	const watched = 10 * time.Second // more than the nodes' sessions live
	type look struct {
		after    time.Duration
		sessions []string
	}
	var looks []look
	for time.Since(back) < watched {
		// it answers with nothing while it is busy with itself
		if sessions, err := p.c.Registrations(p.ctx); err == nil {
			looks = append(looks, look{time.Since(back), sessions})
		}
		Pause(p.ctx, pollEvery)
	}
	if len(looks) == 0 {
		p.Fatal("ZooKeeper did not list its sessions")
	}
	last := looks[len(looks)-1]
	since := last.after
	for _, l := range slices.Backward(looks) {
		if len(missing(last.sessions, l.sessions)) > 0 {
			break
		}
		since = l.after
	}
	p.Count("nodes in ZooKeeper", len(p.c.Nodes), len(last.sessions))
	p.Within("re-registered", 2*time.Second, since)
	report, err := p.load.Stop()
	p.check(err)
	p.Outcomes("messages", report.Outcomes, "acked")
	return last.sessions
}

// missing returns those of want that are not in got.
func missing(want, got []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(got, s) })
}

// many lets 10,000 IDs lose their node at once.
func many(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	victims := p.users(0, UsersConfig{Name: "victim", Sessions: 100, PerUser: 100})
	p.Logf("to reach them before took %v", p.reach(sender, victims.IDs, time.Now()).Round(time.Millisecond))
	died := time.Now()
	p.c.Nodes[0].Kill()
	p.Within("10,000 IDs can be reached again", 5*time.Second, p.reach(sender, victims.IDs, died))
	p.Count("kicks", 0, victims.Kicks())
	p.check(p.c.Nodes[0].Restart(p.ctx))
}

// partition cuts a node off for 20 s.
func partition(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	victims := p.users(0, UsersConfig{Name: "victim", Sessions: 20, PerUser: 10})
	p.reach(sender, victims.IDs, time.Now())

	cut := time.Now()
	p.check(p.c.Hosts[0].Partition())
	p.Cleanup(func() { _ = p.c.Hosts[0].Heal() })
	p.Logf("its sessions deliver again after %v", p.reach(sender, victims.IDs, cut).Round(time.Millisecond))
	p.suffer(time.Until(cut.Add(20 * time.Second)))
	p.check(p.c.Hosts[0].Heal())
	healed := time.Now()
	stale, err := p.c.Nodes[0].Metric(p.ctx, "distmsg_connections")
	p.check(err)
	p.check(p.c.WaitLinked(p.ctx))
	p.Logf("links are back after %v; connections that the node had when it was healed: %v", time.Since(healed).Round(time.Millisecond), stale)
	back := p.users(0, UsersConfig{Name: "back", Sessions: 1, PerUser: 10})
	p.reach(sender, back.IDs, healed)
	p.reach(back, victims.IDs, healed)
	p.Within("converged", 2*time.Second, time.Since(healed))
	p.Count("kicks", 0, victims.Kicks())
}
