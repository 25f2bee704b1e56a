package faults

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"distmsg/client"
)

// What can be wrong with a Redis that answers.

// rebuildWindow is how long after a loss nobody is said not to be bound.
const rebuildWindow = 10 * time.Second

// says waits until the health of every node says something, and returns how long that took.
func (p *proof) says(want string, since time.Time) time.Duration {
	p.Helper()
	for _, node := range p.c.Nodes {
		for {
			text, err := node.Health(p.ctx)
			if err == nil && (strings.HasPrefix(text, want) || want != "ok" && strings.Contains(text, want)) {
				p.Logf("health: %s", strings.TrimSpace(text))
				break
			}
			if !Pause(p.ctx, pollEvery) {
				p.Fatalf("health says %q (%v), and not %q", text, err, want)
			}
		}
	}
	return time.Since(since)
}

// looks asks all nodes how they are, again and again for some time, and notes how often they said
// that they were well.
func (p *proof) looks(d time.Duration) {
	p.Helper()
	well, looks := 0, 0
	for begin := time.Now(); time.Since(begin) < d; {
		for _, node := range p.c.Nodes {
			text, err := node.Health(p.ctx)
			p.check(err)
			looks++
			if strings.HasPrefix(text, "ok") {
				well++
			}
		}
		Pause(p.ctx, pollEvery)
	}
	p.Count("of "+strconv.Itoa(looks)+" looks at health, those that were ok", 0, well)
}

func (p *proof) redis(args ...string) {
	p.Helper()
	_, err := p.c.Redis.Do(p.ctx, args...)
	p.check(err)
}

// redisOld lets Redis come back with what it had some time ago.
func redisOld(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	stay := p.users(0, UsersConfig{Name: "stay", Sessions: 1, PerUser: 20})
	ends := p.users(0, UsersConfig{Name: "end", Sessions: 5, PerUser: 20})
	moves := p.users(2, UsersConfig{Name: "move", Sessions: 1, PerUser: 20})
	gone := stay.IDs[:10]
	p.reach(sender, slices.Concat(stay.IDs, ends.IDs, moves.IDs), time.Now())
	p.redis("SAVE")
	p.check(stay.sessions[0].Unbind(p.ctx, gone...))
	ends.Close()
	p.check(moves.sessions[0].Unbind(p.ctx, moves.IDs[:10]...))
	p.check(sender.sessions[0].Bind(p.ctx, moves.IDs[:10]...)) // which holds them from here on
	p.bound("end-", 0)

	p.c.Redis.Kill()
	p.check(p.c.Redis.Restart(p.ctx))
	back := time.Now()
	p.bound("stay-", 20) // as it was
	p.bound("end-", 100)
	talk := p.talk(sender, slices.Concat(stay.IDs[10:], moves.IDs))
	verify, err := time.ParseDuration(p.flag("--verify-period", "5m"))
	p.check(err)
	window, err := time.ParseDuration(p.flag("--resume-window", "10s"))
	p.check(err)
	p.suffer(time.Until(back.Add(rebuildWindow))) // before that, nobody is said not to be bound
	failed := p.failedCalls(0)
	for _, id := range ends.IDs {
		p.hears(sender, id, "no_route", back)
	}
	p.Within("IDs of sessions that had ended are no_route: after the rebuild window, the verify period, and the resume window",
		rebuildWindow+verify+window, time.Since(back))
	p.bound("stay-", 10) // without a message to the others, which would find out at once
	took := time.Since(back)
	// An answer counts for nothing if the registry fails a call meanwhile, as it does on a busy
	// machine. Then the session is asked again.
	questions := 1 + p.failedCalls(0) - failed
	p.Within("IDs that were unbound are not bound: after the rebuild window, and for each question the verify period and the time to answer",
		rebuildWindow+time.Duration(questions)*(verify+answerTime), took)
	for _, id := range gone {
		p.hears(sender, id, "no_route", back)
	}
	p.check(p.users(2, UsersConfig{Name: "taker", Sessions: 1, PerUser: 1}).sessions[0].BindWith(p.ctx, client.BindOptions{RejectNew: true},
		slices.Concat(gone, ends.IDs)...))
	p.Outcomes("to what is bound", talk(), "acked")
	p.Count("kicks", 0, stay.Kicks()+moves.Kicks()+sender.Kicks())
}

// answerTime is how long a session is given to say which IDs it holds, and the pause before it is
// asked.
const answerTime = 13 * time.Second

// failedCalls returns how many calls to the registry have failed at a node.
func (p *proof) failedCalls(node int) (sum int) {
	p.Helper()
	for _, op := range []string{"bind", "unbind", "lookup", "attach", "detach", "presence", "end_session", "probe"} {
		n, err := p.c.Nodes[node].Metric(p.ctx, fmt.Sprintf("distmsg_registry_call_seconds_count{operation=%q,result=\"unavailable\"}", op))
		p.check(err)
		sum += int(n)
	}
	return sum
}

// flag is what the nodes have been told by a flag.
func (p *proof) flag(name, otherwise string) string {
	for _, flag := range p.c.flags {
		if value, found := strings.CutPrefix(flag, name+"="); found {
			return value
		}
	}
	return otherwise
}

// redisClock lets the clock of Redis be two days behind, and then Redis lose its data.
func redisClock(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	holders := p.users(0, UsersConfig{Name: "holder", Sessions: 20, PerUser: 10})
	p.reach(sender, holders.IDs, time.Now())

	p.check(p.c.Clock.Set(-48 * time.Hour))
	p.c.Redis.Kill()
	p.check(p.c.Redis.Restart(p.ctx))
	back := time.Now()
	p.bound("holder-", len(holders.IDs))
	p.Within("all bindings are back", 15*time.Second, time.Since(back))
	p.Within("health says that the clock is wrong", 3*time.Second, p.says("its clock is", back))
	p.Count("kicks", 0, holders.Kicks())
	// which looks them all up
	asker := p.users(2, UsersConfig{Name: "asker", Sessions: 1, PerUser: 1})
	talk := p.talk(asker, holders.IDs)
	// what is not bound then is no_route
	p.suffer(time.Until(back.Add(rebuildWindow + 3*time.Second)))
	p.Outcomes("to IDs to be looked up", talk(), "acked", "registry_unavailable")

	p.check(p.c.Clock.Set(0))
	p.Within("health is ok with the clock right", 3*time.Second, p.says("ok", time.Now()))
}

// redisNoWrites lets Redis answer and take no writes: full, and without the replicas that it is to
// have.
func redisNoWrites(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	known := p.users(0, UsersConfig{Name: "known", Sessions: 1, PerUser: 10})
	p.reach(sender, known.IDs, time.Now())
	p.says("ok", time.Now()) // the first rebuild window is over
	lasts := time.Second
	if *full {
		lasts = 10 * time.Second
	}
	for _, c := range []struct{ setting, bad, good, says string }{
		{"maxmemory", "1", "0", "raise maxmemory"},
		{"min-replicas-to-write", "1", "0", "too few replicas"},
	} {
		p.redis("CONFIG", "SET", c.setting, c.bad)
		talk := p.talk(sender, known.IDs)
		p.Within(c.setting+": health says it", 2*time.Second, p.says(c.says, time.Now()))
		p.looks(lasts)
		p.Outcomes("to known routes", talk(), "acked")
		p.redis("CONFIG", "SET", c.setting, c.good)
		p.Within(c.setting+": health is ok again", 2*time.Second, p.says("ok", time.Now()))
	}
}

// redisSettings lets Redis be told to drop what it must keep, while the nodes run.
func redisSettings(p *proof) {
	const says = "set maxmemory-policy from allkeys-lru to noeviction"
	change := func() time.Time {
		p.redis("CONFIG", "SET", "maxmemory", "1gb")
		p.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
		return time.Now()
	}
	p.says("ok", time.Now()) // the first rebuild window is over
	changed := change()
	p.redis("CLIENT", "KILL", "TYPE", "normal")
	p.Within("health says it after a reconnect", 2*time.Second, p.says(says, changed))
	p.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
	p.Within("health is ok again", 2*time.Second, p.says("ok", time.Now()))
	p.Within("health says it without one", time.Minute, p.says(says, change()))
	p.looks(3 * time.Second)
}
