package token

import (
	"bytes"
	"testing"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

const loops, session = 4, 77

var (
	handle = routing.Handle{Loop: 3, Slot: 70_000, Gen: 9}
	origin = map[string][]byte{
		"ack":    {0, 1, 2, 3, 4, 5, 6, 7},
		"report": bytes.Repeat([]byte{5}, ReportLen),
	}
)

// given lists the tokens that a session can be given, each with a function that checks whether it
// was.
func given(k *Keys) map[string]struct {
	token []byte
	mine  func(k *Keys, b []byte, session uint64) bool
} {
	ack := func(k *Keys, b []byte, session uint64) bool { _, ok := k.OpenAck(b, session); return ok }
	report := (*Keys).IsReport
	link := func(k *Keys, b []byte, session uint64) bool { _, _, ok := k.OpenLink(b, session); return ok }
	return map[string]struct {
		token []byte
		mine  func(k *Keys, b []byte, session uint64) bool
	}{
		"ack":              {k.SealAck(AppendEntry(nil, 1<<40), session), ack},
		"report":           {k.AppendReport(nil, handle, 12, session), report},
		"ack over link":    {k.AppendLink(nil, origin["ack"], handle, session), link},
		"report over link": {k.AppendLink(nil, origin["report"], handle, session), link},
	}
}

// Only the session that was given a token can use it, and only unchanged.
func TestOnlyWhatWasGiven(t *testing.T) {
	k, others := NewKeys(loops, true), NewKeys(loops, true)
	lengths := map[int]string{0: "none", AckLen: "between nodes"}
	for name, c := range given(&k) {
		if !c.mine(&k, c.token, session) {
			t.Errorf("%s: refused", name)
		}
		if c.mine(&k, c.token, session+1) || c.mine(&others, c.token, session) {
			t.Errorf("%s: accepted from another session, or another node", name)
		}
		for bit := range 8 * len(c.token) {
			changed := bytes.Clone(c.token)
			changed[bit/8] ^= 1 << (bit % 8)
			if c.mine(&k, changed, session) {
				t.Errorf("%s: accepted with bit %d flipped", name, bit)
			}
		}
		for n := range c.token {
			if c.mine(&k, c.token[:n], session) {
				t.Errorf("%s: accepted with %d bytes", name, n)
			}
		}
		if c.mine(&k, append(bytes.Clone(c.token), 0), session) {
			t.Errorf("%s: accepted with a byte more", name)
		}
		if other, taken := lengths[len(c.token)]; taken || len(c.token) > codec.MaxToken {
			t.Errorf("%s: has %d bytes, as %q", name, len(c.token), other)
		}
		lengths[len(c.token)] = name
	}
}

// Reading a token returns what it was made of.
func TestRoundTrip(t *testing.T) {
	k := NewKeys(loops, true)
	plain := AppendEntry(nil, 1<<40)
	if e, ok := Ack(plain); e != 1<<40 || !ok {
		t.Errorf("between nodes: %d, %v", e, ok)
	}
	sealed := k.SealAck(bytes.Clone(plain), session)
	if e, ok := k.OpenAck(sealed, session); e != 1<<40 || !ok || Entry(sealed) != e {
		t.Errorf("sealed: %d, %v, %d", e, ok, Entry(sealed))
	}
	if _, ok := Ack(sealed); ok {
		t.Error("a sealed token passes for one between nodes")
	}
	if again := k.SealAck(bytes.Clone(sealed), session); !bytes.Equal(again, sealed) {
		t.Error("a token was sealed twice")
	}
	if h, seq := Report(k.AppendReport(nil, handle, 12, session)); h != handle || seq != 12 {
		t.Errorf("report: %v, %d", h, seq)
	}
	for name, want := range origin {
		b := k.AppendLink(nil, want, handle, session)
		got, h, ok := k.OpenLink(b, session)
		if !bytes.Equal(got, want) || h != handle || !ok {
			t.Errorf("over a link, %s: %v, %v, %v", name, got, h, ok)
		}
		if got, h, ok := Link(b); !bytes.Equal(got, want) || h != handle || !ok {
			t.Errorf("over a link, %s, not checked: %v, %v, %v", name, got, h, ok)
		}
	}
	if b := k.AppendLink(nil, nil, handle, session); len(b) != 0 {
		t.Errorf("a message that nobody asks about has a token: %v", b)
	}
}

// A token that names a loop or a link which the node does not have is refused, no matter who sealed
// it.
func TestNoSuchPlace(t *testing.T) {
	k := NewKeys(loops, true)
	few, alone := k, k
	few.loops, alone.links = 1, false
	m := ackmgr.New(ackmgr.Config{Loop: 2}, 0)
	e, ok := m.Arm(ackmgr.Entry{}, 1, m.NewList(), m.NewList())
	if !ok || e.Loop() != 2 {
		t.Fatalf("%v %v", e, ok)
	}
	sealed := k.SealAck(AppendEntry(nil, e), session)
	if _, ok := few.OpenAck(sealed, session); ok {
		t.Error("an entry of a loop that there is not")
	}
	b := k.AppendLink(nil, origin["ack"], handle, session)
	if _, _, ok := few.OpenLink(b, session); ok {
		t.Error("a link of a loop that there is not")
	}
	if _, _, ok := alone.OpenLink(b, session); ok {
		t.Error("a link of a node that has none")
	}
}

// Two messages have different sums if they differ in what a receiver returns.
func TestSum(t *testing.T) {
	k := NewKeys(loops, true)
	d := codec.Deliver{To: []byte("to"), From: []byte("from"), Flags: codec.FlagAck, Epoch: 9, Payload: []byte("payload")}
	want := k.Sum(&d)
	if got := k.SumWith(k.PayloadSum(d.Payload), &d); got != want {
		t.Errorf("with a payload's sum: %d, want %d", got, want)
	}
	var shared SharedSum
	for range 2 {
		if got := k.SumWith(shared.Of(&k, d.Payload), &d); got != want {
			t.Errorf("with a shared sum: %d, want %d", got, want)
		}
	}
	for name, change := range map[string]func(*codec.Deliver){
		"to":      func(d *codec.Deliver) { d.To = []byte("tp") },
		"from":    func(d *codec.Deliver) { d.From = []byte("frog") },
		"flags":   func(d *codec.Deliver) { d.Flags = 0 },
		"epoch":   func(d *codec.Deliver) { d.Epoch++ },
		"payload": func(d *codec.Deliver) { d.Payload = []byte("payloaf") },
	} {
		other := d
		change(&other)
		if k.Sum(&other) == want {
			t.Errorf("the sum does not change with %s", name)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	k := NewKeys(loops, true)
	buf := make([]byte, 0, codec.MaxToken)
	link := k.AppendLink(nil, origin["ack"], handle, session)
	d := codec.Deliver{To: []byte("to"), From: []byte("from"), Payload: make([]byte, 100)}
	var sum uint32
	if n := testing.AllocsPerRun(100, func() {
		sealed := k.SealAck(AppendEntry(buf, 1), session)
		k.OpenAck(sealed, session)
		k.IsReport(k.AppendReport(buf, handle, 1, session), session)
		k.AppendLink(buf, origin["ack"], handle, session)
		k.OpenLink(link, session)
		sum += k.Sum(&d)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAck measures the tokens of one message with ack: one seal and one check.
func BenchmarkAck(b *testing.B) {
	k := NewKeys(loops, true)
	buf := make([]byte, 0, codec.MaxToken)
	for b.Loop() {
		if _, ok := k.OpenAck(k.SealAck(AppendEntry(buf, 1), session), session); !ok {
			b.Fatal("refused")
		}
	}
}
