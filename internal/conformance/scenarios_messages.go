package conformance

import (
	"bytes"
	"fmt"
	"time"

	"distmsg/codec"
)

// Scenarios about messages in both directions, their limits, and their outcomes.
var messageScenarios = []Scenario{
	{
		Name:   "acks",
		About:  "messages with ack, with report, and with neither; tokens of all lengths. The client answers each with ack exactly once, and no other.",
		script: acks,
	},
	{
		Name:   "outcomes",
		About:  "outcomes for sends that were never made, and second outcomes. The first one for a send counts, and the client continues.",
		script: strayOutcomes,
	},
	{
		Name:   "in-flight",
		About:  "max_in_flight is 3 and the outcomes come late. The client holds the fourth send.",
		limits: func(l *codec.Limits) { l.MaxInFlight = 3 },
		script: inFlight,
	},
	{
		Name:   "credit",
		About:  "the credit is small and is renewed late. The client sends nothing beyond it, and resumes when there is more.",
		limits: func(l *codec.Limits) { l.Credit = 600 },
		script: smallCredit,
	},
	{
		Name:   "over-limit",
		About:  "sends end overflow, with reasons that name a limit and with others. The client notifies the application, does not repeat them by itself, and continues.",
		script: overLimit,
	},
	{
		Name:   "multicast",
		About:  "the node delivers to several IDs in one frame, one of them unknown, and answers a multicast with outcomes. For clients that claim the feature.",
		script: multicasts,
	},
	{
		Name:   "watch",
		About:  "the application watches an ID. The client hears of changes, and watches again after a reconnect. For clients that can watch.",
		script: watches,
	},
}

func acks(p *play) {
	c := p.first()
	for _, f := range []codec.Deliver{
		{Token: []byte{0}},
		{Token: bytes.Repeat([]byte{0xff}, codec.MaxToken), Payload: []byte("the longest token")},
		{Payload: bytes.Repeat([]byte{0xc1}, 70_000)},
		{From: []byte{}, Payload: []byte("from nobody")},
		{Payload: []byte(RejectPrefix + "not today")},
		{Payload: []byte(RejectPrefix + "ein schöner Grund")},
	} {
		f.To = []byte(Alice)
		p.messages.acked(p.messages.deliver(c, f), secMessages, "the client acks a message whose flags have bit 0 set")
	}
	for _, f := range []codec.Deliver{
		{Payload: []byte("quiet")},
		{Payload: []byte("quiet, with a token"), Token: []byte("quiet one")},
		{Payload: []byte("report"), Flags: codec.FlagReport, Token: []byte("reported one")},
		{Payload: []byte("a flag of the future"), Flags: 1 << 6},
	} {
		f.To = []byte(Bob)
		p.messages.transmit(c, f, false)
	}
	p.worksFor(c, Bob, secMessages, "after messages without ack")
	p.during(settle) // an ack for one of those, or a second ack, is a fault when it arrives
}

func strayOutcomes(p *play) {
	c := p.first()
	p.put(c, codec.AppendOutcome(nil, &codec.Outcome{Seq: 1<<53 - 1, Code: codec.CodeAcked}))
	p.onSend = func(s *send) {
		p.messages.outcome(s, codec.CodeNoRoute)
		p.messages.outcome(s, codec.CodeAcked) // too late
	}
	p.instruct(c, "%s carol 3 5", doSend)
	p.reports.outcomes(secEnding, "the first outcome counts", "carol", 3, "no_route", "no")
	p.onSend = nil
	p.works(c, secEnding, "after outcomes that nobody waits for")
}

func inFlight(p *play) {
	c := p.first()
	const all = 10
	p.onSend = func(*send) {}
	p.instruct(c, "%s carol %d 5", doSend, all)
	for i := range all {
		p.until(c, secPolite, "the client sends as soon as an outcome makes room", func() bool { return len(p.messages.sent) > i })
		if i == 2 || i == 5 {
			p.during(settle) // a send over the limit is a fault when it arrives
		}
		p.messages.outcome(p.messages.sent[i], codec.CodeAcked)
	}
	p.onSend = nil
	p.reports.outcomes(secMessages, "the sends were acked", "carol", all, "acked", "yes")
}

func overLimit(p *play) {
	c := p.first()
	for i, reason := range []string{
		"limit identity-messages: try again in 100 ms", "limit of-the-future: try again in 1 ms", "limit identity-in-flight", "a queue is full",
	} {
		to := fmt.Sprint("receiver-", i)
		p.onSend = func(s *send) {
			if string(s.To) != to || len(p.messages.sentTo(to)) > 1 {
				p.blame(s.conn, secEnding, "a client never sends a message again by itself", fmt.Sprintf("another send of %q", s.Payload), s.frame)
			}
			delete(s.conn.sends, s.Seq)
			p.put(s.conn, codec.AppendOutcome(nil, &codec.Outcome{Seq: s.Seq, Code: codec.CodeOverflow, Reason: []byte(reason)}))
		}
		p.instruct(c, "%s %s 1 5", doSend, to)
		p.reports.outcomes(secOver, "the application hears that the message was not delivered, because of "+reason, to, 1, "overflow", "no")
	}
	p.during(settle) // a repeated send is a fault when it arrives
	p.onSend = nil
	p.instruct(c, "%s carol 1 5", doSend)
	p.reports.outcomes(secOver, "the client sends again when the limit allows it", "carol", 1, "acked", "yes")
}

func smallCredit(p *play) {
	c := p.first()
	const all, size = 30, 60
	p.instruct(c, "%s carol %d %d", doPost, all, size)
	p.until(c, secMessages, "the client posts as far as its credit goes", func() bool { return c.used > c.credit/2 })
	p.during(settle) // a send beyond the credit is a fault when it arrives
	p.put(c, codec.AppendCredit(nil, c.credit/2))
	p.during(settle)
	for len(p.messages.sentTo("carol")) < all {
		before := len(p.messages.sentTo("carol"))
		c.credit = c.used + p.limits.Credit
		p.put(c, codec.AppendCredit(nil, c.credit))
		p.until(c, secMessages, "the client resumes when there is new credit", func() bool { return len(p.messages.sentTo("carol")) > before })
		p.during(settle / 3)
	}
	// On a new connection, the credit starts again.
	before := len(p.conns)
	p.reset(c)
	c = p.again(before, secReconnect, "the client connects again")
	p.instruct(c, "%s dave 2 %d", doPost, size)
	p.until(c, secReconnect, "credit begins anew with each connection", func() bool { return len(p.messages.sentTo("dave")) == 2 })
}

func multicasts(p *play) {
	c := p.first()
	if c.hello.Features&codec.FeatureMulticast == 0 {
		p.end(Skip, "the client does not claim the feature multicast")
	}
	to := []codec.Recipient{
		{To: []byte(Alice), Epoch: p.bindings.epochs[Alice]}, {To: []byte("mallory"), Epoch: 7},
		{To: []byte(Bob), Epoch: p.bindings.epochs[Bob]}, {To: []byte(Bob), Epoch: p.bindings.epochs[Bob] + 1},
	}
	all := p.messages.deliverMany(c, to[:3], map[string]bool{"mallory": true}, "to many")
	p.messages.acked(all[0], secMulticast, "the client acks each element of deliver_many that is its own")
	p.messages.acked(all[2], secMulticast, "the client acks each element of deliver_many that is its own")
	p.messages.comesBack(all[1], secMulticast, "the client returns what it does not hold, in not_here_many")
	stale := p.messages.deliverMany(c, to[3:], map[string]bool{Bob: true}, "stale")
	p.messages.comesBack(stale[0], secMulticast, "the client returns an element under a greater epoch, in not_here_many")

	p.onSend = func(*send) {}
	p.instruct(c, "%s carol dave erin", doMulticast)
	p.until(c, secMulticast, "the client sends to all recipients", func() bool { return len(p.messages.sent) == 3 })
	p.onSend = nil
	var some []byte
	for i, code := range []codec.Code{codec.CodeAcked, codec.CodeNoRoute, codec.CodeTimeout} {
		delete(c.sends, p.messages.sent[2-i].Seq)
		some = codec.AppendOneOutcome(some, &codec.Outcome{Seq: p.messages.sent[2-i].Seq, Code: code})
	}
	p.put(c, codec.AppendOutcomes(nil, 3, some))
	for _, report := range []string{"carol 1 timeout unknown", "dave 2 no_route no", "erin 3 acked yes"} {
		p.reports.told(secMulticast, "each recipient has an outcome of its own, by its seq", saysOutcome+" "+report)
	}
}

func watches(p *play) {
	c := p.first()
	watched := 0
	epoch := uint64(0)
	p.onWatch = func(c *conn, seq uint64, ids []string) {
		results := make([]codec.Result, len(ids))
		for i, id := range ids {
			if id != "carol" {
				p.blame(c, secWatching, "a watch of carol, as the application asked", "a watch of "+id, nil)
			}
			if results[i] = (codec.Result{Code: codec.CodeNoRoute}); epoch > 0 {
				results[i] = codec.Result{Epoch: epoch}
			}
		}
		watched++
		p.put(c, codec.AppendResults(nil, codec.KindWatched, seq, results))
	}
	p.instruct(c, "%s carol", doWatch)
	p.until(c, secWatching, "the client sends watch", func() bool { return watched == 1 })
	p.reports.told(secWatching, "watched says that the ID is offline", saysPresence+" carol offline")
	p.put(c, codec.AppendChanged(nil, []codec.Change{{ID: []byte("dave"), Epoch: 5}, {ID: []byte("carol"), Code: 40, Epoch: 5}, {ID: []byte("carol"), Epoch: 10}}))
	p.reports.told(secWatching, "changed says that the ID is online", saysPresence+" carol online")
	p.put(c, codec.AppendChanged(nil, []codec.Change{{ID: []byte("carol"), Code: codec.CodeNoRoute, Epoch: 10}}))
	p.reports.told(secWatching, "changed says that the ID is offline", saysPresence+" carol offline")
	before := len(p.conns)
	epoch = 20
	p.reset(c)
	c = p.again(before, secReconnect, "the client connects again")
	p.until(c, secWatching, "the client watches again on the next connection", func() bool { return watched == 2 })
	p.reports.told(secWatching, "what watched says differs from what the client knew, so it is a change", saysPresence+" carol online")
	p.during(settle / 3)
}

// lastsAWhile is how long the scenarios about storms last.
const lastsAWhile = 3 * time.Second

// maxDials is how often a client may dial in lastsAWhile. With full jitter from 50 ms on, doubling,
// it takes about seven.
const maxDials = 20

// noStorm checks that the client, whose connections all fail now, tries repeatedly, but with
// pauses.
func (p *play) noStorm(why string) {
	before := len(p.conns)
	p.during(lastsAWhile)
	dials := len(p.conns) - before
	switch {
	case dials > maxDials:
		p.blame(p.latest(), secReconnect, fmt.Sprintf("the pauses grow while %s: at most %d attempts in %v", why, maxDials, lastsAWhile), fmt.Sprintf("%d attempts", dials), nil)
	case dials == 0:
		p.blame(p.latest(), secReconnect, "the client retries while "+why, "no attempt in "+lastsAWhile.String(), nil)
	}
}
