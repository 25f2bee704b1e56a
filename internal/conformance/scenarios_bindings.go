package conformance

import (
	"fmt"
	"maps"

	"distmsg/codec"
)

// Scenarios about who holds an ID, under which epoch, and how that changes.
var bindingScenarios = []Scenario{
	{
		Name:   "kick",
		About:  "kicks with lower, equal and greater epochs, and of an ID that the client does not hold. The client obeys the greater one, and never binds that ID again by itself.",
		script: kicks,
	},
	{
		Name:   "kick-during-bind",
		About:  "a kick comes before the bound that it supersedes. The client remembers it.",
		script: kickDuringBind,
	},
	{
		Name:   "stale-delivers",
		About:  "messages under lower, equal, greater and unknown epochs, and to IDs that the client does not hold. It acks its own and returns the others.",
		script: staleDelivers,
	},
	{
		Name:  "whole-not-here",
		About: "the same from a node that does not grant short_not_here. What the client returns has all the fields as they were.",
		script: func(p *play) {
			p.features &^= codec.FeatureShortNotHere
			staleDelivers(p)
		},
	},
	{
		Name:   "unbind",
		About:  "the application gives an ID back. The client names the exact epoch, and returns what is delivered to that ID from then on.",
		script: unbinds,
	},
	{
		Name:   "bind-refused",
		About:  "binds that end taken and denied. The client notifies the application, and does not retry by itself.",
		script: bindRefused,
	},
	{
		Name:   "bind-unavailable",
		About:  "binds that end registry_unavailable, overflow and draining. The client retries with back-off, or notifies the application.",
		script: bindUnavailable,
	},
	{
		Name:   "bind-interrupted",
		About:  "the connection ends before bound comes. The client repeats the bind as it was on the next connection, or notifies the application that the result is unknown.",
		script: bindInterrupted,
	},
	{
		Name:   "reassert",
		About:  "the node asks for all bindings. The client asserts each of them under its exact epoch, and no other.",
		limits: func(l *codec.Limits) { l.MaxIDs = 2 },
		script: reassert,
	},
	{
		Name:   "reassert-lost",
		About:  "a re-assert is answered superseded, with an epoch that is lower, and registry_unavailable. The client treats superseded as a kick, and asserts the other ID again.",
		script: reassertLost,
	},
}

func kicks(p *play) {
	c := p.first()
	p.during(settle) // no bind is in progress in the program either
	p.put(c, codec.AppendKick(nil, Alice, p.bindings.epochs[Alice]-1))
	p.put(c, codec.AppendKick(nil, Alice, p.bindings.epochs[Alice]))
	p.put(c, codec.AppendKick(nil, "mallory", p.bindings.mint()))
	d := p.messages.deliver(c, codec.Deliver{To: []byte(Alice), Payload: []byte("yours")})
	p.messages.acked(d, secBindings, "the client ignores a kick whose epoch is not greater than the one it holds, and one of an ID that it does not hold")

	held := p.bindings.epochs[Alice]
	p.bindings.kick(c, Alice)
	p.reports.told(secBindings, "the application hears of a kick", saysKicked+" "+Alice)
	p.messages.comesBack(p.messages.stray(c, codec.Deliver{To: []byte(Alice), Epoch: held, Flags: codec.FlagAck}), secBindings, "a client that was kicked does not hold the ID: it returns what is delivered to it")

	p.noResume = true // so that the client must assert all its IDs
	before := len(p.conns)
	p.reset(c)
	c = p.again(before, secReconnect, "the client connects again")
	p.reasserted(c)
	p.worksFor(c, Bob, secReconnect, "after its re-assert")
}

// reasserted waits until the client has asserted all its IDs. Each assertion is checked when it
// arrives.
func (p *play) reasserted(c *conn) {
	p.until(c, secReconnect, "the client re-asserts all IDs that it holds: "+list(keys(p.bindings.due)), func() bool { return len(keys(p.bindings.due)) == 0 })
}

func keys(m map[string]bool) (set []string) {
	for id := range maps.Keys(m) {
		if m[id] {
			set = append(set, id)
		}
	}
	return set
}

// worksFor checks that messages to an ID of the scenario's choice arrive.
func (p *play) worksFor(c *conn, id, section, after string) {
	d := p.messages.deliver(c, codec.Deliver{To: []byte(id), Payload: []byte("still here?")})
	p.messages.acked(d, section, after+": the client continues, and acks what is delivered to "+id)
}

// askBind instructs the client's program to bind an ID.
func (p *play) askBind(c *conn, verb, id string) {
	p.bindings.wanted[id] = true
	p.instruct(c, "%s %s", verb, id)
}

func kickDuringBind(p *play) {
	c := p.first()
	var b *bind
	p.onBind = func(_ *conn, asked *bind) { b = asked }
	p.askBind(c, doBind, "carol")
	p.until(c, secBindings, "the client binds carol", func() bool { return b != nil })
	early := p.messages.deliver(c, codec.Deliver{To: []byte("carol"), Epoch: p.bindings.mint(), Payload: []byte("before bound")})
	p.messages.acked(early, secMessages, "while a bind is under way, what is delivered to the ID is the client's own")
	epoch := p.bindings.mint()
	p.put(c, codec.AppendKick(nil, "carol", p.bindings.mint()))
	p.bindings.results(c, b, []codec.Result{{Epoch: epoch}})
	p.bindings.forget("carol")
	p.reports.told(secBindings, "bound brings a smaller epoch than a kick that came meanwhile, so the ID is kicked at once", saysKicked+" carol")
	p.reports.toldOne(secBindings, "the bind ends", saysBound+" carol ok", saysBound+" carol superseded")
	p.messages.comesBack(p.messages.stray(c, codec.Deliver{To: []byte("carol"), Epoch: epoch, Flags: codec.FlagAck}), secBindings, "the client does not hold the ID")

	b = nil
	p.askBind(c, doBind, "dave")
	p.until(c, secBindings, "the client binds dave", func() bool { return b != nil })
	p.put(c, codec.AppendKick(nil, "dave", p.bindings.mint()))
	p.bindings.grantAll(c, b) // with a greater epoch
	p.reports.told(secBindings, "the bind was granted", saysBound+" dave ok")
	p.worksFor(c, "dave", secBindings, "after bound with a greater epoch than that of the kick")
}

func staleDelivers(p *play) {
	c := p.first()
	held := p.bindings.epochs[Alice]
	for _, own := range []uint64{held, held - 1, 1} {
		d := p.messages.deliver(c, codec.Deliver{To: []byte(Alice), Epoch: own, Payload: []byte("own")})
		p.messages.acked(d, secMessages, fmt.Sprintf("a message under epoch %d is the client's own, as it holds %q under %d", own, Alice, held))
	}
	ack, none := uint8(codec.FlagAck), uint8(0)
	for _, f := range []codec.Deliver{
		{To: []byte(Alice), Epoch: held + 1, Flags: ack, Payload: []byte("a later binding's")},
		{To: []byte("mallory"), Epoch: held, Flags: ack, Payload: []byte("nobody's")},
		{To: []byte("mallory"), Epoch: held, Flags: ack, TTL: 1, Token: []byte{0}, Payload: nil},
		{To: []byte("mallory"), Epoch: held, Flags: none, Payload: []byte("nobody's, without ack, ttl and token")},
		{To: []byte("mallory"), Epoch: held, Flags: codec.FlagReport, Token: []byte("quiet"), TTL: 5000, Payload: []byte("nobody's, with report")},
	} {
		d := p.messages.stray(c, f)
		p.messages.comesBack(d, secMessages, fmt.Sprintf("not_here for a message to %q under epoch %d", f.To, f.Epoch))
	}
	p.works(c, secMessages, "after messages that were not its own")
}

func unbinds(p *play) {
	c := p.first()
	held := p.bindings.epochs[Bob]
	p.bindings.unwanted[Bob] = true
	p.instruct(c, "%s %s", doUnbind, Bob)
	p.until(c, secBindings, "the client sends unbind", func() bool { return p.bindings.epochs[Bob] == 0 })
	p.reports.toldOne(secBindings, "the application hears that the ID was given back", saysUnbound+" "+Bob+" ok")
	p.messages.comesBack(p.messages.stray(c, codec.Deliver{To: []byte(Bob), Epoch: held, Flags: codec.FlagAck}), secBindings, "not_here for an ID that was given back")
	p.noResume = true
	before := len(p.conns)
	p.reset(c)
	c = p.again(before, secReconnect, "the client connects again")
	p.reasserted(c)
	p.works(c, secReconnect, "after its re-assert")
}

func bindRefused(p *play) {
	c := p.first()
	var policy codec.Policy
	code := codec.CodeTaken
	p.onBind = func(c *conn, b *bind) {
		policy = b.policy
		p.bindings.answerAll(c, b, code)
	}
	p.askBind(c, doBindNew, "carol")
	p.reports.told(secBindings, "the application hears that the ID is taken", saysBound+" carol taken")
	if policy != codec.PolicyRejectNew {
		p.blame(c, secBindings, "bind_new asks for policy 1, reject-new", "policy 0", nil)
	}
	code = codec.CodeDenied
	p.askBind(c, doBind, "dave")
	p.reports.told(secBindings, "the application hears that the bind was denied", saysBound+" dave denied")
	if policy != codec.PolicyKickOld {
		p.blame(c, secBindings, "bind asks for policy 0, kick-old", "policy 1", nil)
	}
	p.during(2 * settle) // a repeated bind is a fault when it arrives
	for _, id := range []string{"carol", "dave"} {
		p.messages.comesBack(p.messages.stray(c, codec.Deliver{To: []byte(id), Epoch: p.bindings.mint(), Flags: codec.FlagAck}), secBindings, "the client does not hold an ID whose bind was refused")
	}
}

func bindUnavailable(p *play) {
	c := p.first()
	for _, code := range []codec.Code{codec.CodeRegistryUnavailable, codec.CodeOverflow, codec.CodeDraining} {
		id := "user-" + code.String()
		tries := 0
		p.onBind = func(c *conn, b *bind) {
			if tries++; tries > 20 {
				p.blame(c, secBindings, "the client retries with back-off", "21 binds of one ID at once", b.frame)
			}
			p.bindings.answerAll(c, b, code)
		}
		p.askBind(c, doBind, id)
		p.until(c, secBindings, "the client binds "+id, func() bool { return tries > 0 })
		p.during(settle)
		p.onBind = nil
		if p.reports.toldOne(secBindings, "the client binds again until it is granted, or notifies the application", saysBound+" "+id+" ok", saysBound+" "+id+" "+code.String()) == 0 {
			p.worksFor(c, id, secBindings, "after a bind that was granted late")
		}
		p.bindings.wanted[id] = false
	}
}

func bindInterrupted(p *play) {
	c := p.first()
	var b *bind
	p.onBind = func(_ *conn, asked *bind) { b = asked }
	p.askBind(c, doBind, "carol")
	p.until(c, secBindings, "the client binds carol", func() bool { return b != nil })
	p.onBind = nil
	before := len(p.conns)
	p.reset(c)
	c = p.again(before, secReconnect, "the client connects again")
	p.resumes(c)
	if p.reports.toldOne(secBindings, "the client repeats the bind, or notifies the application that the result is unknown",
		saysBound+" carol ok", saysBound+" carol lost", saysBound+" carol timeout") == 0 {
		p.worksFor(c, "carol", secBindings, "after a bind that was repeated")
	}
	p.bindings.wanted["carol"] = false
}

func reassert(p *play) {
	c := p.first()
	for _, within := range []uint64{0, 500} {
		for id := range p.bindings.epochs {
			p.bindings.due[id] = true
		}
		p.put(c, codec.AppendReassert(nil, within))
		p.until(c, secReassert, "the client answers reassert with binds of all its IDs: "+list(keys(p.bindings.due)), func() bool { return len(keys(p.bindings.due)) == 0 })
	}
	p.works(c, secReassert, "after reassert")
}

func reassertLost(p *play) {
	c := p.first()
	held := p.bindings.epochs[Alice]
	unavailable := true
	p.onBind = func(c *conn, b *bind) {
		results := make([]codec.Result, len(b.ids))
		for i, v := range b.ids {
			results[i] = codec.Result{Epoch: v.Epoch}
			switch id := string(v.ID); {
			case id == Alice:
				results[i] = codec.Result{Code: codec.CodeSuperseded, Epoch: held - 5}
			case id == Bob && unavailable:
				results[i] = codec.Result{Code: codec.CodeRegistryUnavailable}
				unavailable = false
			}
		}
		p.bindings.results(c, b, results)
	}
	for id := range p.bindings.epochs {
		p.bindings.due[id] = true
	}
	p.put(c, codec.AppendReassert(nil, 0))
	p.reports.told(secBindings, "superseded in answer to a re-assert is a kick, whatever its epoch", saysKicked+" "+Alice)
	p.until(c, secReconnect, "the client asserts again what was registry_unavailable", func() bool { return len(keys(p.bindings.due)) == 0 })
	p.onBind = nil
	p.messages.comesBack(p.messages.stray(c, codec.Deliver{To: []byte(Alice), Epoch: held, Flags: codec.FlagAck}), secBindings, "not_here for an ID that is superseded")
	p.worksFor(c, Bob, secBindings, "after a re-assert that had to be repeated")
}
