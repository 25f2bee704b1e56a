package faults

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"distmsg/internal/proc"
)

// saysNot waits until the health of no node says something.
func (p *proof) saysNot(text string) {
	p.Helper()
	for _, node := range p.c.Nodes {
		for {
			health, err := node.Health(p.ctx)
			if err == nil && !strings.Contains(health, text) {
				break
			}
			if !Pause(p.ctx, pollEvery) {
				p.Fatalf("health still says %q: %s, %v", text, health, err)
			}
		}
	}
}

// undisturbed ends the load, and checks that no message has failed and no link has broken.
func (p *proof) undisturbed() {
	p.Helper()
	p.Count("links that broke", 0, strings.Count(p.c.Logs(), "link down"))
	report, err := p.load.Stop()
	p.check(err)
	p.Outcomes("messages", report.Outcomes, "acked")
}

// dnsAway lets DNS answer nothing: it says that no name has an address, then that it has failed,
// and then it is silent.
func dnsAway(p *proof) {
	each := 0 * time.Second
	if *full {
		each = 10 * time.Second
	}
	for _, mood := range []proc.DNSMood{proc.DNSEmpty, proc.DNSFails, proc.DNSSilent} {
		p.c.DNS.Behave(mood)
		p.says("the list of nodes may be out of date: dns: ", time.Now())
		p.suffer(each)
	}
	p.c.DNS.Behave(proc.DNSAnswers)
	back := time.Now()
	p.saysNot("the list of nodes may be out of date")
	p.Within("health is ok again", 7*time.Second, time.Since(back)) // a lookup that waits takes 5 s
	p.undisturbed()
}

// dnsWrong lets DNS name only addresses that are wrong: one where nobody listens, one of a stranger
// who says nothing, and one of clients.
func dnsWrong(p *proof) {
	each := time.Second
	if *full {
		each = 20 * time.Second
	}
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	p.check(err)
	defer stranger.Close()
	wrong := []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort(stranger.Addr().String()), netip.MustParseAddrPort(p.c.Nodes[0].Addr),
	}
	nodes := p.c.Nodes
	p.c.Nodes = nil
	p.c.NameNodes(wrong...)
	p.c.Nodes = nodes
	for _, at := range wrong {
		p.says(fmt.Sprintf("the list of nodes names %s, where no node answers", at), time.Now())
	}
	p.suffer(each)
	p.check(p.c.WaitLinked(p.ctx))
	p.c.NameNodes()
	right := time.Now()
	p.saysNot("where no node answers")
	p.Within("health is ok again", 5*time.Second, time.Since(right))
	p.undisturbed()
}

// dnsNew starts one more node, which DNS names when it is there, and ends it again.
func dnsNew(p *proof) {
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	began := time.Now()
	node, err := proc.StartRelay(p.ctx, p.c.Relay("n4", p.c.Redis))
	p.check(err)
	defer node.Close()
	others := p.c.Nodes
	p.c.Nodes = append(p.c.Nodes, node)
	p.check(p.c.WaitLinked(p.ctx))
	p.Within("it is linked to all, before DNS names it", 10*time.Second, time.Since(began))
	p.c.NameNodes()
	fresh := p.users(len(others), UsersConfig{Name: "fresh", Sessions: 1, PerUser: 10})
	p.reach(sender, fresh.IDs, time.Now())
	p.check(node.Stop())
	p.Count("exit code of the new node", 0, node.Wait())
	p.c.Nodes = others
	p.c.NameNodes()
	p.check(p.c.WaitLinked(p.ctx))
	ended := time.Now()
	p.saysNot(`no link to node "n4"`)
	p.Within("nobody misses it when it has left", 2*time.Second, time.Since(ended))
	p.reach(sender, fresh.IDs, time.Now()) // who have moved
	p.Count("kicks", 0, fresh.Kicks())
}

// dnsDead kills a node together with an app server that was attached only there.
func dnsDead(p *proof) {
	taker, err := Take(p.ctx, p.c.Nodes[0].Addr, "taken")
	p.check(err)
	defer taker.Close()
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	for sender.Send(p.ctx, "nobody", sendTTL) != "no_route" { // the rebuild window of the new Redis
		if !Pause(p.ctx, lookEvery) {
			p.Fatal("nobody says no_route of an ID that was never bound")
		}
	}
	p.reach(sender, []string{"taken"}, time.Now())
	p.c.Nodes[0].Kill()
	died := time.Now()
	var outcome string
	for ; outcome != "no_route" && p.ctx.Err() == nil; Pause(p.ctx, lookEvery) {
		if outcome = sender.Send(p.ctx, "taken", sendTTL); outcome != "unreachable" && outcome != "no_route" && outcome != "lost" {
			p.Fatalf("a send to an ID whose node and app server are dead ends %s", outcome)
		}
	}
	p.Within("no_route: the resume window, and what it takes to notice", 13*time.Second, time.Since(died))
	p.check(p.c.Nodes[0].Restart(p.ctx))
	p.check(p.c.WaitLinked(p.ctx))
}
