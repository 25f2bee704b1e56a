package attack

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/internal/faults"
	"distmsg/loadtest"
)

// Attack is one way in which some clients can try to deprive the others of a node.
type Attack struct {
	Name  string
	What  string
	Nodes int      // the number of nodes; 1 is one node alone, without Redis
	Flags []string // more flags of the nodes
	First int      // the first node that has innocents; earlier nodes may be restarted
	// Secure says that the nodes use TLS, and that they ask for a token.
	Secure bool

	contested int // how many IDs it fights over

	// runs in the attackers' process until ctx ends or it is done
	run func(ctx context.Context, t *Target)
	// what is done to the nodes meanwhile; nil: nothing
	besides func(ctx context.Context, a *Arena) error
}

// Attacks returns all attacks.
func Attacks() []Attack {
	return []Attack{
		{Name: "fanout", Nodes: 1, run: fanout,
			What: "an honest load: 2,000 connections, window 4, multicasts to 1,000"},
		{Name: "copies", Nodes: 1, run: copies,
			What: "one client sends 108 MB of multicasts of 10,000 copies"},
		{Name: "pending", Nodes: 1, run: pending,
			What: "34 connections with 65,536 unacked sends each, ttl 300 s"},
		{Name: "unread", Nodes: 1, run: unread,
			What: "100 connections that do not read, 40 MB of replies for each"},
		{Name: "halves", Nodes: 1, run: halves,
			What: "1,000 connections that send 1 MB of a frame and then nothing"},
		{Name: "hellos", Nodes: 1, run: hellos,
			What: "2,000 silent connections to the clients' port, 2,000 to the admin port"},
		{Name: "bounces", Nodes: 1, run: bounces,
			What: "each message that asks for reports is given back three times"},
		{Name: "sessions", Nodes: 3, run: sessions,
			What: "short sessions as fast as they come; their IDs are sent to"},
		{Name: "strangers", Nodes: 3, run: strangers,
			What: "4 clients send multicasts to 10,000 unknown IDs each, 1 MB a second together"},
		{Name: "buckets", Nodes: 3, run: buckets, Flags: []string{"--verify-period=10s"},
			What: "up to 3 million IDs that an unkeyed hash puts into 64 of 16,384 buckets"},
		{Name: "not-here", Nodes: 3, run: notHere,
			What: "one not_here_many of 170,000 elements a second (1 MB), bad tokens"},
		{Name: "lookups", Nodes: 3, run: lookups,
			What: "lookups of one ID each, 0.54 MB a second"},
		{Name: "watches", Nodes: 3, run: watches,
			What: "20 connections watch 100,000 IDs each"},
		{Name: "peer-port", Nodes: 3, run: peerPort, besides: restartFirst, First: 1,
			What: "400 silent connections on each peer port, while a node restarts"},
		{Name: "forged", Nodes: 3, run: forged,
			What: "acks with invented link tokens and replies of 1 MiB"},
		{Name: "replies", Nodes: 3, run: replies,
			What: "replies of 1 MiB over a link to clients that do not read"},
		{Name: "thieves", Nodes: 3, run: thieves, contested: 1,
			What: "two sessions take one ID from each other"},
		{Name: "heists", Nodes: 3, run: heists, contested: maxIDs,
			What: "four sessions take 1,024 IDs at a time from each other"},
		{Name: "tls-halves", Nodes: 1, Secure: true, run: tlsHalves,
			What: "TLS: 2,000 handshakes at a time that stop in the middle"},
		{Name: "tls-storm", Nodes: 1, Secure: true, run: tlsStorm,
			What: "TLS: whole handshakes as fast as they come, each with a new connection"},
		{Name: "tls-resets", Nodes: 1, Secure: true, run: tlsResets,
			What: "TLS: connections that are reset during the handshake and just after it"},
		{Name: "tls-garbage", Nodes: 1, Secure: true, run: tlsGarbage,
			What: "TLS: bytes that are no TLS, before, during and after the handshake"},
		{Name: "logins", Nodes: 1, Secure: true, run: logins,
			What: "TLS: wrong tokens and other wrong credentials as fast as they come"},
		{Name: "proxies", Nodes: 1, Secure: true, run: proxies, Flags: []string{"--proxy-protocol-from=" + balancer},
			What: "TLS: a load balancer's address sends half, large and wrong PROXY headers, and good ones from a million clients"},
	}
}

// Find returns the attack with a name.
func Find(name string) (Attack, error) {
	for _, a := range Attacks() {
		if a.Name == name {
			return a, nil
		}
	}
	return Attack{}, fmt.Errorf("there is no attack %q", name)
}

// fanout is not an attack, but a load that is too large for the machine.
func fanout(ctx context.Context, t *Target) {
	// Messages in flight need time to end, and so does connecting if nodes are slow.
	long, cancel := context.WithTimeout(ctx, t.Duration*7/10)
	defer cancel()
	t.each(ctx, 1, func(int) error {
		report, err := loadtest.Run(ctx, loadtest.Config{
			Nodes: t.Clients, Conns: t.n(2000), Window: 4, Fanout: t.n(1000), Payload: 64,
			Warmup: -1, Duration: t.Duration, Grace: time.Second, Until: long.Done(),
		})
		if err != nil {
			return err // the load had not begun when ctx ended
		}
		for word, n := range report.Outcomes {
			t.count("its "+word, int(n))
		}
		t.count("its lost connections", int(report.LostConnections))
		t.count("its unanswered", int(report.Unanswered))
		t.count("its ledger faults", int(report.Faults.Total()))
		return nil
	})
}

// copies causes much work with few bytes: each frame of 108 KB is 10,000 deliveries, over 500
// connections that each need a frame for every delivery. The sender respects its credit.
func copies(ctx context.Context, t *Target) {
	ids, perConn := names("copy", 10_000), 20
	var ready sync.WaitGroup
	for i := range len(ids) / perConn {
		ready.Add(1)
		go t.each(ctx, 1, func(int) error {
			w, err := joinWith(ctx, t.Clients[0], 0)
			if err == nil {
				_, err = w.bind(ids[i*perConn:][:perConn])
			}
			ready.Done()
			if err != nil {
				return err
			}
			return t.skip(w)
		})
	}
	ready.Wait()
	t.each(ctx, 1, func(int) error { return t.spendCredit(ctx, ids) })
	<-ctx.Done()
}

// spendCredit sends multicasts to IDs as long as its credit lasts.
func (t *Target) spendCredit(ctx context.Context, ids [][]byte) error {
	w, err := join(ctx, t.Clients[0])
	if err != nil {
		return err
	}
	me := []byte("copier")
	if _, err := w.bind([][]byte{me}); err != nil {
		return err
	}
	frame := codec.AppendMulticast(nil, &codec.Multicast{Seq: 1, From: me}, ids)
	credit := uint64(4 << 20)
	for sent := uint64(0); sent < uint64(t.n(108<<20)); {
		for sent+uint64(len(frame)) > credit {
			kind, body, err := w.next()
			if err != nil {
				return err
			}
			if kind == codec.KindCredit {
				if credit, err = codec.DecodeCredit(body); err != nil {
					return err
				}
			}
		}
		if err := w.write(frame); err != nil {
			return err
		}
		sent += uint64(len(frame))
		t.count("copies", len(ids))
	}
	return nil
}

// pending fills the table of sends that wait for an ack. Each attacker sends to itself, reads, and
// never acks.
func pending(ctx context.Context, t *Target) {
	t.each(ctx, t.n(34), func(i int) error {
		w, err := join(ctx, t.Clients[0])
		if err != nil {
			return err
		}
		id := []byte{byte(i + 1)}
		if _, err := w.bind([][]byte{id}); err != nil {
			return err
		}
		t.drain(ctx, w)
		const each = 4096
		to := slices.Repeat([][]byte{id}, each)
		for seq := 1; seq < 1<<16; seq += each {
			m := codec.Multicast{Seq: uint64(seq), From: id, TTL: 300_000, Flags: codec.FlagAck}
			if err := w.write(codec.AppendMulticast(nil, &m, to)); err != nil {
				return err
			}
			t.count("unacked sends", each)
		}
		// take every place that becomes free
		for seq, more := 1<<16, 16; faults.Pause(ctx, 5*time.Millisecond); seq += more {
			m := codec.Multicast{Seq: uint64(seq), From: id, TTL: 300_000, Flags: codec.FlagAck}
			if err := w.write(codec.AppendMulticast(nil, &m, to[:more])); err != nil {
				return err
			}
		}
		return nil
	})
}

// unread has an accomplice that answers each message with the largest possible reply. The other
// attackers request replies and do not read them.
func unread(ctx context.Context, t *Target) {
	const echoes = 4
	for i := range echoes {
		echo := fmt.Appendf(nil, "echo-%d", i)
		ready := make(chan struct{})
		go t.each(ctx, 1, func(int) error { return t.reply(ctx, t.Clients[0], echo, ready) })
		wait(ctx, ready)
	}
	t.each(ctx, t.n(100), func(i int) error {
		return t.ignore(ctx, t.Clients[0], fmt.Appendf(nil, "deaf-%d", i), fmt.Appendf(nil, "echo-%d", i%echoes), 40)
	})
}

// reply acks each message to an ID with a reply of the greatest length, until ctx ends.
func (t *Target) reply(ctx context.Context, addr string, id []byte, ready chan<- struct{}) error {
	w, err := join(ctx, addr)
	if err == nil {
		_, err = w.bind([][]byte{id})
	}
	close(ready)
	if err != nil {
		return err
	}
	large := make([]byte, 1<<20)
	var out []byte
	for {
		kind, body, err := w.next()
		if err != nil {
			return err
		}
		var d codec.Deliver
		if kind != codec.KindDeliver || codec.DecodeDeliver(body, &d) != nil {
			continue
		}
		out = codec.AppendAck(out[:0], &codec.Ack{Token: d.Token, Code: codec.CodeAcked, Reply: large})
		if err := w.write(out); err != nil {
			return err
		}
		t.count("replies of 1 MiB", 1)
	}
}

// ignore sends n small messages and does not read the answers.
func (t *Target) ignore(ctx context.Context, addr string, id, to []byte, n int) error {
	w, err := join(ctx, addr)
	if err != nil {
		return err
	}
	if _, err := w.bind([][]byte{id}); err != nil {
		return err
	}
	var out []byte
	for seq := range n {
		out = codec.AppendSend(out, &codec.Send{Seq: uint64(seq + 1), To: to, From: id, TTL: 60_000, Flags: codec.FlagAck})
	}
	if err := w.write(out); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// halves sends frames that never become complete, so that the node must buffer the received part.
func halves(ctx context.Context, t *Target) {
	frame := codec.AppendSend(nil, &codec.Send{Seq: 1, To: []byte("nobody"), Payload: make([]byte, 1<<20)})
	t.each(ctx, t.n(1000), func(int) error {
		w, err := join(ctx, t.Clients[0])
		if err != nil {
			return err
		}
		if err := w.write(frame[:len(frame)-1]); err != nil {
			return err
		}
		t.count("halves of frames", 1)
		return t.skip(w)
	})
}

// hellos holds silent connections on the ports that everybody may connect to.
func hellos(ctx context.Context, t *Target) {
	t.each(ctx, t.n(2000)*2, func(i int) error {
		if i%2 == 0 {
			return t.silent(ctx, t.Clients[0])
		}
		return t.silent(ctx, t.Admins[0])
	})
}

// silent connects, sends nothing until the node closes the connection, and starts again.
func (t *Target) silent(ctx context.Context, addr string) error {
	for ctx.Err() == nil {
		nc, err := connect(ctx, addr)
		if err != nil {
			t.count("connections refused", 1)
			faults.Pause(ctx, 100*time.Millisecond)
			continue
		}
		t.count("silent connections", 1)
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		for b := make([]byte, 512); err == nil; _, err = nc.Read(b) {
		}
		stop()
		nc.Close()
		faults.Pause(ctx, 10*time.Millisecond)
	}
	return nil
}

// bounces sends to itself with report, and returns each message three times. A send may have one
// outcome, and in rare cases two.
func bounces(ctx context.Context, t *Target) {
	t.each(ctx, 1, func(int) error {
		w, err := join(ctx, t.Clients[0])
		if err != nil {
			return err
		}
		id := []byte("bouncer")
		var outcomes [1 << 16]int
		for seq := 1; seq < t.n(len(outcomes)-1); seq++ {
			// bind again: a session that returns a message no longer holds its ID
			if _, err := w.bind([][]byte{id}); err != nil {
				return err
			}
			frame := codec.AppendSend(nil, &codec.Send{Seq: uint64(seq), To: id, From: id, Flags: codec.FlagReport})
			body, err := w.ask(frame, codec.KindDeliver)
			if err != nil {
				return err
			}
			var d codec.Deliver
			if err := codec.DecodeDeliver(body, &d); err != nil {
				return err
			}
			short := d.Short()
			back := codec.AppendNotHere(nil, &short)
			if err := t.heard(w, slices.Concat(back, back, back, codec.AppendPing(nil, uint64(seq))), outcomes[:]); err != nil {
				return err
			}
			t.count("messages given back", 1)
			if outcomes[seq] > 2 {
				t.count("sends with more than 2 outcomes", 1)
			}
		}
		return nil
	})
}

// heard writes frames that end with a ping, and counts the outcomes that arrive before the pong.
func (t *Target) heard(w *wire, frames []byte, outcomes []int) error {
	if err := w.write(frames); err != nil {
		return err
	}
	for {
		kind, body, err := w.next()
		if err != nil || kind == codec.KindPong {
			return err
		}
		var o codec.Outcome
		if kind == codec.KindOutcome && codec.DecodeOutcome(body, &o) == nil && o.Seq < uint64(len(outcomes)) {
			outcomes[o.Seq]++
		}
	}
}

// notHere returns messages that were never delivered: first in the largest possible frames, and if
// the node closes the connection for that, in frames with as many elements as a multicast may have.
func notHere(ctx context.Context, t *Target) {
	const large, allowed = 170_000, 10_000
	t.each(ctx, 1, func(int) error {
		if err := t.giveBack(ctx, t.n(large), time.Second); err != nil {
			t.count("ended: "+why(err), 1)
		}
		return t.giveBack(ctx, t.n(allowed), time.Second*allowed/large)
	})
}

// giveBack sends not_here_many frames of n elements with bad tokens.
func (t *Target) giveBack(ctx context.Context, n int, every time.Duration) error {
	w, err := join(ctx, t.Clients[0])
	if err != nil {
		return err
	}
	t.drain(ctx, w)
	list := make([]codec.Recipient, n)
	for i := range list {
		list[i].To = []byte{byte(1 + i%255)}
	}
	frame := codec.AppendDeliverMany(nil, codec.KindNotHereMany, &codec.DeliverMany{}, list)
	for {
		if err := w.write(frame); err != nil {
			return err
		}
		t.count("elements of not_here_many", n)
		if !faults.Pause(ctx, every) {
			return nil
		}
	}
}

// lookups looks up one ID after the other, each in a frame of its own.
func lookups(ctx context.Context, t *Target) {
	const perTick, tick = 340, 10 * time.Millisecond // 16 bytes each
	t.each(ctx, 1, func(int) error {
		w, err := join(ctx, t.Clients[0])
		if err != nil {
			return err
		}
		t.drain(ctx, w)
		var frames []byte
		for seq := uint64(1); faults.Pause(ctx, tick); {
			frames = frames[:0]
			for range t.n(perTick) {
				frames = codec.AppendLookup(frames, seq, [][]byte{fmt.Appendf(nil, "%06x", seq)})
				seq++
			}
			if err := w.write(frames); err != nil {
				return err
			}
			t.count("lookups", t.n(perTick))
		}
		return nil
	})
}

// watches watches unbound IDs, as many as each connection may.
func watches(ctx context.Context, t *Target) {
	t.each(ctx, t.n(20), func(i int) error {
		w, err := join(ctx, t.Clients[0])
		if err != nil {
			return err
		}
		ids := names(fmt.Sprintf("w%d", i), maxIDs)
		for n := 0; n+len(ids) <= 100_000 && ctx.Err() == nil; n += len(ids) {
			for k := range ids {
				ids[k] = fmt.Appendf(ids[k][:0], "w%d-%d", i, n+k)
			}
			body, err := w.ask(codec.AppendWatch(nil, 1, ids), codec.KindWatched)
			if err != nil {
				return err
			}
			var f codec.Results
			if err := codec.DecodeResults(body, codec.KindWatched, &f); err != nil {
				return err
			}
			for r, ok := f.All.Next(); ok; r, ok = f.All.Next() {
				t.count("watches "+r.Code.String(), 1)
			}
		}
		return t.skip(w)
	})
}

// peerPort holds silent connections on the ports to which the other nodes must connect.
func peerPort(ctx context.Context, t *Target) {
	n := t.n(400)
	t.each(ctx, n*(len(t.Peers)-1)+t.n(2000), func(i int) error {
		if node := 1 + i/n; node < len(t.Peers) {
			return t.silent(ctx, t.Peers[node])
		}
		return t.silent(ctx, t.Clients[1+i%(len(t.Clients)-1)])
	})
}

// restartFirst restarts the first node, which has no innocents, and waits until it has its links.
func restartFirst(ctx context.Context, a *Arena) error {
	faults.Pause(ctx, time.Second) // the silent connections are open by now
	if err := a.Nodes[0].Stop(); err != nil {
		return err
	}
	began := time.Now()
	if err := a.Nodes[0].Restart(ctx); err != nil {
		return err
	}
	for {
		links, err := a.Nodes[0].Metric(ctx, "distmsg_links")
		if err == nil && int(links) == len(a.Nodes)-1 {
			a.note("links of the restarted node back after %v", time.Since(began).Round(100*time.Millisecond))
			return nil
		}
		if !faults.Pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("the restarted node has %v of %d links after %v", links, len(a.Nodes)-1, time.Since(began).Round(time.Second))
		}
	}
}

// forged acks messages that were never delivered. Its tokens have every length that a link's token
// may have or used to have, and name the handles that links get first.
func forged(ctx context.Context, t *Target) {
	large := make([]byte, 1<<20)
	t.each(ctx, t.n(8), func(i int) error {
		w, err := join(ctx, t.Clients[0])
		if err != nil {
			return err
		}
		t.drain(ctx, w)
		var out []byte
		for n := i; ctx.Err() == nil; n++ {
			token := make([]byte, [...]int{18, 22, 36, 44}[n%4])
			origin := 8
			if len(token) >= 36 {
				origin = 26
			}
			binary.BigEndian.PutUint16(token[origin:], uint16(n/4%2))    // loop
			binary.BigEndian.PutUint32(token[origin+2:], uint32(n/8%16)) // slot
			binary.BigEndian.PutUint32(token[origin+6:], 1)              // generation
			out = codec.AppendAck(out[:0], &codec.Ack{Token: token, Code: codec.CodeAcked, Reply: large})
			if err := w.write(out); err != nil {
				return err
			}
			t.count("forged acks", 1)
		}
		return nil
	})
}

// replies is unread, over a link.
func replies(ctx context.Context, t *Target) {
	const echoes = 4
	far := t.Clients[len(t.Clients)-1]
	for i := range echoes {
		ready := make(chan struct{})
		go t.each(ctx, 1, func(int) error { return t.reply(ctx, far, fmt.Appendf(nil, "far-echo-%d", i), ready) })
		wait(ctx, ready)
	}
	t.each(ctx, t.n(16), func(i int) error {
		return t.ignore(ctx, t.Clients[0], fmt.Appendf(nil, "far-deaf-%d", i), fmt.Appendf(nil, "far-echo-%d", i%echoes), 100)
	})
}

// thieves binds one ID from two sessions in turn, as fast as possible.
func thieves(ctx context.Context, t *Target) { t.steal(ctx, 2, names("contested", 1)) }

// heists is thieves with as many IDs as a frame may have.
func heists(ctx context.Context, t *Target) { t.steal(ctx, 4, names("loot", t.n(maxIDs))) }

// steal lets n sessions, at different nodes, bind the same IDs again and again.
func (t *Target) steal(ctx context.Context, n int, ids [][]byte) {
	t.each(ctx, n, func(i int) error {
		w, err := join(ctx, t.Clients[i%len(t.Clients)])
		if err != nil {
			return err
		}
		for ctx.Err() == nil {
			bound, err := w.bind(ids)
			t.count("IDs stolen", bound)
			t.count("thefts refused", len(ids)-bound)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// names returns n IDs.
func names(prefix string, n int) [][]byte {
	ids := make([][]byte, n)
	for i := range ids {
		ids[i] = fmt.Appendf(nil, "%s-%d", prefix, i)
	}
	return ids
}

// wait waits until a channel is closed, or ctx ends.
func wait(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}
