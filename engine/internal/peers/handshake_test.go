package peers

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"distmsg/codec"
	"distmsg/engine/internal/keyring"
)

// newSelf is a node of that name.
func newSelf(node string, change ...func(*Self)) *Self {
	s := &Self{
		Node: node, Cluster: "test", Secrets: keyring.New([]byte("the secret of the test cluster")), MinVersion: 1, MaxVersion: 1,
		Identity: func() codec.PeerIdentity {
			return codec.PeerIdentity{Since: 1000, Settings: []codec.Setting{{Name: "max payload", Value: "64"}}}
		},
		ClientAddr: func() string { return "192.0.2.1:7400" },
	}
	for _, f := range change {
		f(s)
	}
	return s
}

// body takes the one frame of a step apart.
func body(t *testing.T, step Step) (codec.Kind, []byte) {
	t.Helper()
	b, n, err := codec.Split(step.Send, codec.MaxHelloFrame)
	if err != nil || n != len(step.Send) || n == 0 {
		t.Fatalf("%+v holds not one frame: %d bytes, %v", step, n, err)
	}
	kind, err := codec.PeekKind(b)
	if err != nil {
		t.Fatal(err)
	}
	return kind, b
}

// pair is the two sides of a handshake. Each step of one is handed to the other.
type pair struct {
	t                  *testing.T
	dialling, accepted *Handshake
	hello              []byte // what the one that dialled has said first
}

// shake has n0 dial n1, under incarnations 10 and 11.
func shake(t *testing.T, dials, accepts *Self) (p pair, first Step) {
	p = pair{t: t, accepted: Accept(accepts, 11)}
	p.dialling, first = Dial(dials, 10, "n1")
	p.hello = first.Send
	return p, first
}

// pass hands the frame of a step to a side.
func (p *pair) pass(to *Handshake, step Step) Step {
	p.t.Helper()
	return to.Handle(body(p.t, step))
}

// until brings a handshake to the phase in which that side waits.
func until(t *testing.T, at phase) *Handshake {
	t.Helper()
	p, hello := shake(t, newSelf("n0"), newSelf("n1"))
	side := map[phase]*Handshake{isNew: p.accepted, challenged: p.accepted, greeting: p.dialling, proving: p.dialling}[at]
	if side == nil {
		side = p.accepted
	}
	if side.phase == at {
		return side
	}
	challenge := p.pass(p.accepted, hello)
	if side.phase == at {
		return side
	}
	p.pass(p.dialling, challenge)
	proof := p.dialling.Proceed(RivalGone, "")
	if side.phase == at {
		return side
	}
	p.pass(p.accepted, proof)
	if side.phase == at {
		return side
	}
	p.accepted.Proceed(RivalGone, "")
	if at == over {
		p.accepted.Proceed(RivalSilent, "")
	}
	if side.phase != at {
		t.Fatalf("a handshake in phase %d, want %d", side.phase, at)
	}
	return side
}

// Both sides open when each frame comes in its turn.
func TestGoodOrder(t *testing.T) {
	p, hello := shake(t, newSelf("n0"), newSelf("n1"))
	challenge := p.pass(p.accepted, hello)
	if kind, _ := body(t, challenge); kind != codec.KindPeerChallenge || challenge.Verdict != ToWait || challenge.Proved {
		t.Errorf("to a hello: %+v", challenge)
	}
	if s := p.pass(p.dialling, challenge); s.Verdict != ToSupersede || !s.Proved || len(s.Send) > 0 {
		t.Errorf("to a challenge: %+v", s)
	}
	proof := p.dialling.Proceed(RivalGone, "")
	if kind, _ := body(t, proof); kind != codec.KindPeerProof || proof.Verdict != ToWait {
		t.Errorf("when the old link is closed: %+v", proof)
	}
	if s := p.pass(p.accepted, proof); s.Verdict != ToSupersede || !s.Proved || len(s.Send) > 0 {
		t.Errorf("to a proof: %+v", s)
	}
	ready := p.accepted.Proceed(RivalGone, "")
	if kind, _ := body(t, ready); kind != codec.KindPeerReady || ready.Verdict != ToOpen {
		t.Errorf("when the old link is closed: %+v", ready)
	}
	if s := p.pass(p.dialling, ready); s.Verdict != ToOpen || s.Proved || len(s.Send) > 0 {
		t.Errorf("to ready: %+v", s)
	}
	if peer := p.dialling.Peer(); peer.Node != "n1" || peer.Incarnation != 11 || peer.Identity.Since != 1000 {
		t.Errorf("who has dialled knows %+v", peer)
	}
	if peer := p.accepted.Peer(); peer.Node != "n0" || peer.Incarnation != 10 || peer.Identity.Since != 1000 {
		t.Errorf("who has accepted knows %+v", peer)
	}
}

// In each phase there is one frame that may come, besides an error.
func TestFramesOutOfOrder(t *testing.T) {
	kinds := []codec.Kind{0, codec.KindHello, codec.KindPeerHello, codec.KindPeerChallenge, codec.KindPeerProof, codec.KindPeerReady, codec.KindForward, codec.KindPing}
	for _, at := range []phase{isNew, challenged, greeting, proved, proving, open, over} {
		for _, kind := range kinds {
			if expected, ok := at.expected(); ok && kind == expected {
				continue
			}
			h := until(t, at)
			s := h.Handle(kind, nil)
			says := "this kind is not allowed at this point of the handshake between nodes"
			if kind == codec.KindHello {
				says = "this address is for other nodes; clients connect to 192.0.2.1:7400"
			}
			want := Step{Verdict: ToRefuse, Fault: codec.FaultUnexpectedKind, Kind: kind, Detail: says}
			if fmt.Sprint(s) != fmt.Sprint(want) || h.phase != over {
				t.Errorf("phase %d, %v: %+v", at, kind, s)
			}
		}
	}
}

// Bytes that are no frame of that kind are refused.
func TestMalformedFrames(t *testing.T) {
	for _, at := range []phase{isNew, challenged, greeting, proving} {
		kind, _ := at.expected()
		if s := until(t, at).Handle(kind, []byte{0x92, byte(kind), 0xc1}); s.Verdict != ToRefuse || s.Kind != kind || s.Fault == 0 {
			t.Errorf("%v: %+v", kind, s)
		}
	}
	if s := until(t, open).PeerError([]byte{0xc1}); s.Verdict != ToRefuse || s.Kind != codec.KindError {
		t.Errorf("an error frame: %+v", s)
	}
}

// Whoever must not be linked is refused, with the reason, by the side that finds out.
func TestRefusedNodes(t *testing.T) {
	other := func(s *Self) { s.Secrets.Set([][]byte{[]byte("the secret of somebody else")}) }
	window := func(s *Self) {
		s.Identity = func() codec.PeerIdentity {
			return codec.PeerIdentity{Since: 1, Settings: []codec.Setting{{Name: "max payload", Value: "9"}, {Name: "unknown", Value: "x"}}}
		}
	}
	for _, v := range []struct {
		name           string
		dials, accepts func(*Self)
		by             Role
		fault          codec.Fault
		note           Note
		says           string
	}{
		{"another cluster", func(s *Self) { s.Cluster = "other" }, nil, Accepted, codec.FaultUnauthenticated, NoteOtherCluster, `this node belongs to cluster "test", not "other"`},
		{"no version in common", func(s *Self) { s.MinVersion, s.MaxVersion = 8, 9 }, nil, Accepted, codec.FaultBadVersion, NoNote,
			"this node speaks versions 1 to 1 with its peers, the other 8 to 9"},
		{"older versions only", nil, func(s *Self) { s.MinVersion, s.MaxVersion = 2, 3 }, Accepted, codec.FaultBadVersion, NoNote,
			"this node speaks versions 2 to 3 with its peers, the other 1 to 1"},
		{"the same name", func(s *Self) { s.Node = "n1" }, nil, Accepted, codec.FaultUnauthenticated, NoteSameName, `both nodes are called "n1": give one of them another ID`},
		{"another secret", other, nil, Dialled, codec.FaultUnauthenticated, NoteBadSecret, "the proof does not match the cluster's secret"},
		{"another node", nil, func(s *Self) { s.Node = "n2" }, Dialled, codec.FaultUnauthenticated, NoNote, `expected node "n1" at this address, but "n2" answered`},
		{"other settings", window, nil, Accepted, codec.FaultUnauthenticated, NoteDiffers, "the settings of the two nodes differ: max payload 9 there, 64 here"},
	} {
		t.Run(v.name, func(t *testing.T) {
			dials, accepts := newSelf("n0"), newSelf("n1")
			if v.dials != nil {
				v.dials(dials)
			}
			if v.accepts != nil {
				v.accepts(accepts)
			}
			p, step := shake(t, dials, accepts)
			var by Role
			for side := p.accepted; step.Verdict != ToRefuse; {
				if step.Verdict == ToOpen {
					t.Fatal("a link has opened")
				}
				step, by = p.pass(side, step), side.role
				if step.Verdict == ToSupersede {
					step = side.Proceed(RivalGone, "")
				}
				side = map[*Handshake]*Handshake{p.accepted: p.dialling, p.dialling: p.accepted}[side]
			}
			if by != v.by || step.Fault != v.fault || step.Note != v.note || step.Detail != v.says {
				t.Errorf("%s refuses: %+v", by, step)
			}
		})
	}
}

// Both sides note what they do not agree on, also who dialled, who waits for the refusal.
func TestBothNoteWhatDiffers(t *testing.T) {
	dials := newSelf("n0")
	dials.Identity = func() codec.PeerIdentity {
		return codec.PeerIdentity{Since: 1, Settings: []codec.Setting{{Name: "max payload", Value: "9"}}}
	}
	p, hello := shake(t, dials, newSelf("n1"))
	proof := p.pass(p.dialling, p.pass(p.accepted, hello))
	if kind, _ := body(t, proof); kind != codec.KindPeerProof || proof.Note != NoteDiffers || !proof.Proved || p.dialling.Differs() != "max payload 64 there, 9 here" {
		t.Errorf("who has dialled: %+v, %q", proof, p.dialling.Differs())
	}
	refused := codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultUnauthenticated, Message: "the settings of the two nodes differ"})
	if s := p.pass(p.dialling, Step{Send: refused}); s.Verdict != ToEnd || s.Note != NoNote {
		t.Errorf("the refusal is logged once more: %+v", s)
	}
	p, hello = shake(t, dials, newSelf("n1"))
	p.pass(p.dialling, p.pass(p.accepted, hello))
	if s := p.pass(p.dialling, Step{Send: codec.AppendPeerReady(nil)}); s.Verdict != ToRefuse || s.Detail != "the settings of the two nodes differ: max payload 64 there, 9 here" {
		t.Errorf("the other is content: %+v", s)
	}
}

// A proof is worth nothing in another handshake, or in the other role.
func TestReplayedProofs(t *testing.T) {
	p, hello := shake(t, newSelf("n0"), newSelf("n1"))
	challenge := p.pass(p.accepted, hello)
	p.pass(p.dialling, challenge)
	proof := p.dialling.Proceed(RivalGone, "")

	again := pair{t: t, accepted: Accept(newSelf("n1"), 11)}
	fresh := again.pass(again.accepted, Step{Send: p.hello})
	if s := again.pass(again.accepted, proof); s.Verdict != ToRefuse || s.Note != NoteBadSecret || s.Proved {
		t.Errorf("a proof that was overheard: %+v", s)
	}
	other, _ := shake(t, newSelf("n0"), newSelf("n1"))
	if s := other.pass(other.dialling, fresh); s.Verdict != ToRefuse || s.Note != NoteBadSecret {
		t.Errorf("a challenge that was overheard: %+v", s)
	}
	other, hello = shake(t, newSelf("n0"), newSelf("n1"))
	var f codec.PeerChallenge
	_, b := body(t, other.pass(other.accepted, hello))
	if err := codec.DecodePeerChallenge(b, &f); err != nil {
		t.Fatal(err)
	}
	if s := other.pass(other.accepted, Step{Send: codec.AppendPeerProof(nil, f.Proof)}); s.Verdict != ToRefuse || s.Note != NoteBadSecret {
		t.Errorf("a proof that was reflected: %+v", s)
	}
}

// Nothing that the two nodes say can be changed on the way.
func TestTranscriptHoldsAll(t *testing.T) {
	identity := func() codec.PeerIdentity {
		return codec.PeerIdentity{Since: 5, Settings: []codec.Setting{{Name: "a", Value: "b"}}}
	}
	said := func(change func(*codec.PeerHello, *codec.PeerChallenge)) []byte {
		h := codec.PeerHello{MinVersion: 1, MaxVersion: 2, Cluster: []byte("c"), Node: []byte("d"), Incarnation: 3, Nonce: make([]byte, 16), PeerIdentity: identity()}
		c := codec.PeerChallenge{Version: 1, Node: []byte("a"), Incarnation: 4, Nonce: make([]byte, 16), PeerIdentity: identity()}
		change(&h, &c)
		return Transcript(&h, &c)
	}
	all := [][]byte{said(func(*codec.PeerHello, *codec.PeerChallenge) {})}
	for i, change := range []func(h *codec.PeerHello, c *codec.PeerChallenge){
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.MinVersion = 2 },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.MaxVersion = 3 },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Cluster = []byte("cd") },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Cluster, h.Node = []byte("cd"), nil },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Node = []byte("x") },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Incarnation++ },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Nonce[0]++ },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Since++ },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Flags++ },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Settings[0].Value = "x" },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Settings = nil },
		func(h *codec.PeerHello, _ *codec.PeerChallenge) { h.Since = 0 },
		func(_ *codec.PeerHello, c *codec.PeerChallenge) { c.Version = 2 },
		func(_ *codec.PeerHello, c *codec.PeerChallenge) { c.Node = []byte("x") },
		func(_ *codec.PeerHello, c *codec.PeerChallenge) { c.Incarnation++ },
		func(_ *codec.PeerHello, c *codec.PeerChallenge) { c.Nonce[0]++ },
		func(_ *codec.PeerHello, c *codec.PeerChallenge) { c.Since++ },
		func(_ *codec.PeerHello, c *codec.PeerChallenge) { c.Flags++ },
		func(_ *codec.PeerHello, c *codec.PeerChallenge) { c.Settings[0].Name = "x" },
	} {
		b := said(change)
		if slices.ContainsFunc(all, func(other []byte) bool { return bytes.Equal(b, other) }) {
			t.Errorf("change %d makes no difference", i)
		}
		all = append(all, b)
	}
}

// What Proceed does depends on the role, and on what has become of the older link.
func TestProceed(t *testing.T) {
	for _, v := range []struct {
		role    Role
		rival   Rival
		sends   codec.Kind
		verdict Verdict
		fault   codec.Fault
		note    Note
		says    string
	}{
		{Dialled, RivalGone, codec.KindPeerProof, ToWait, 0, NoNote, ""},
		{Dialled, RivalEnds, codec.KindPeerProof, ToWait, 0, NoNote, ""},
		{Dialled, RivalStays, codec.KindPeerProof, ToRefuse, codec.FaultNameTaken, NoteNameTaken, `a node called "n1" already runs at 192.0.2.7:1: give one of the two another node ID`},
		{Dialled, RivalSilent, 0, ToRefuse, codec.FaultReplaced, NoNote, "another node of this name may be alive: try again"},
		{Dialled, RivalAsked, 0, ToRefuse, codec.FaultReplaced, NoNote, "another node of this name may be alive: try again"},
		{Accepted, RivalGone, codec.KindPeerReady, ToOpen, 0, NoNote, ""},
		{Accepted, RivalEnds, codec.KindPeerReady, ToOpen, 0, NoNote, ""},
		{Accepted, RivalStays, 0, ToRefuse, codec.FaultNameTaken, NoteNameTaken, `a node called "n0" already runs at 192.0.2.7:1: give one of the two another node ID`},
		{Accepted, RivalSilent, 0, ToRefuse, codec.FaultReplaced, NoNote, "another node of this name may be alive: try again"},
	} {
		p, hello := shake(t, newSelf("n0"), newSelf("n1"))
		h := p.dialling
		p.pass(h, p.pass(p.accepted, hello))
		if v.role == Accepted {
			h = p.accepted
			p.pass(h, p.dialling.Proceed(RivalGone, ""))
		}
		s := h.Proceed(v.rival, "192.0.2.7:1")
		var sends codec.Kind
		if len(s.Send) > 0 {
			sends, _ = body(t, s)
		}
		if sends != v.sends || s.Verdict != v.verdict || s.Fault != v.fault || s.Note != v.note || s.Detail != v.says {
			t.Errorf("%s, %d: sends %v, %+v", v.role, v.rival, sends, s)
		}
		if v.note == NoteNameTaken && s.Where != "192.0.2.7:1" {
			t.Errorf("%s: the one that stays is at %q", v.role, s.Where)
		}
	}
}

// An error frame ends the link in each phase. What it says counts if the other node has proved
// itself.
func TestErrorFrames(t *testing.T) {
	for _, v := range []struct {
		fault codec.Fault
		at    []phase
		note  Note
	}{
		{codec.FaultGoingAway, []phase{isNew, proving, open}, NoNote},
		{codec.FaultReplaced, []phase{greeting, open}, NoNote},
		{codec.FaultFenced, []phase{open}, NoNote},
		{codec.FaultNameTaken, []phase{isNew, challenged, greeting}, NoNote},
		{codec.FaultNameTaken, []phase{proved, proving, open}, NoteMustEnd},
		{codec.FaultUnauthenticated, []phase{isNew, challenged, greeting, proved, proving, open}, NoteTurnedAway},
	} {
		for _, at := range v.at {
			frame := codec.AppendError(nil, &codec.ErrorFrame{Fault: v.fault, Message: "because"})
			h := until(t, at)
			s := h.Handle(body(t, Step{Send: frame}))
			if s.Verdict != ToEnd || s.Note != v.note || s.Fault != v.fault || s.Detail != "because" || len(s.Send) > 0 {
				t.Errorf("%v in phase %d: %+v", v.fault, at, s)
			}
		}
	}
}

// What stands in the registry in place of its identity must not keep nodes apart.
func TestOddRegistryIdentity(t *testing.T) {
	for _, id := range []string{strings.Repeat("x", 5000), "\xff", "a\x00b"} {
		if text := RegistryText(id); len(text) != 16 || text == RegistryText(id+"y") {
			t.Errorf("%.20q is %q", id, text)
		}
	}
	if got := RegistryText("ABC"); got != "ABC" {
		t.Errorf("a usual one is %q", got)
	}
}

// Whatever somebody sends who does not know the secret, no link opens.
func FuzzHandshake(f *testing.F) {
	hello := newSelf("n0").Hello("n0", 10)
	challenge := codec.PeerChallenge{Version: 1, Node: []byte("n1"), Incarnation: 11, Nonce: random(codec.NonceLen), Proof: random(codec.SecretLen)}
	proof := codec.AppendPeerProof(nil, random(codec.SecretLen))
	f.Add(false, append(codec.AppendPeerHello(nil, &hello), proof...))
	f.Add(true, append(codec.AppendPeerChallenge(nil, &challenge), codec.AppendPeerReady(nil)...))
	f.Add(false, codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultNameTaken, Message: "x"}))
	f.Add(true, codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	f.Fuzz(func(t *testing.T, dials bool, b []byte) {
		h := Accept(newSelf("n1"), 11)
		if dials {
			h, _ = Dial(newSelf("n0"), 10, "n1")
		}
		for {
			frame, n, err := codec.Split(b, codec.MaxHelloFrame)
			if err != nil || n == 0 {
				return
			}
			b = b[n:]
			kind, err := codec.PeekKind(frame)
			if err != nil {
				return
			}
			switch s := h.Handle(kind, frame); {
			case s.Proved || s.Verdict == ToSupersede || s.Verdict == ToOpen || s.Note == NoteMustEnd:
				t.Fatalf("%v: %+v", kind, s)
			case s.Verdict == ToRefuse && (s.Fault == 0 || s.Detail == ""):
				t.Fatalf("refused without a reason: %+v", s)
			case s.Verdict == ToRefuse || s.Verdict == ToEnd:
				return
			}
		}
	})
}
