package peers

import (
	"bytes"
	"testing"

	"distmsg/codec"
	"distmsg/engine/internal/keyring"
)

// keys makes one secret of each letter.
func keys(letters string) [][]byte {
	var all [][]byte
	for _, c := range letters {
		all = append(all, bytes.Repeat([]byte{byte(c)}, 16))
	}
	return all
}

// While a secret is replaced, nodes open a link if each accepts what the other uses. The node that
// dialled needs to know only one of the secrets of the other.
func TestHandshakeWithSecrets(t *testing.T) {
	for _, v := range []struct {
		dials, accepts string // the first is used
		opens          bool
	}{
		{"o", "o", true}, {"on", "o", true}, {"o", "on", true}, {"on", "on", true},
		{"no", "on", true}, {"on", "no", true}, {"no", "no", true},
		{"n", "no", true}, {"no", "n", true}, {"n", "n", true},
		{"o", "no", false}, // the one that dialled has not heard of the new secret
		{"n", "on", false}, // and here no more of the old one
		{"o", "n", false}, {"n", "o", false}, {"x", "no", false}, {"no", "x", false},
	} {
		dials, accepts := newSelf("n0"), newSelf("n1")
		dials.Secrets, accepts.Secrets = keyring.New(keys(v.dials)...), keyring.New(keys(v.accepts)...)
		p, hello := shake(t, dials, accepts)
		step := p.pass(p.dialling, p.pass(p.accepted, hello))
		if (step.Verdict == ToSupersede) != v.opens {
			t.Errorf("%+v: %+v", v, step)
		}
		if !v.opens {
			if step.Verdict != ToRefuse || step.Note != NoteBadSecret {
				t.Errorf("%+v: %+v", v, step)
			}
			continue
		}
		step = p.pass(p.accepted, p.dialling.Proceed(RivalGone, ""))
		if step.Verdict != ToSupersede {
			t.Errorf("%+v: %+v", v, step)
		}
		if step = p.pass(p.dialling, p.accepted.Proceed(RivalGone, "")); step.Verdict != ToOpen {
			t.Errorf("%+v: %+v", v, step)
		}
	}
}

// A secret may be replaced while a handshake is under way.
func TestSecretsReplacedInHandshake(t *testing.T) {
	dials, accepts := newSelf("n0"), newSelf("n1")
	for _, s := range []*Self{dials, accepts} {
		s.Secrets = keyring.New(keys("on")...)
	}
	p, hello := shake(t, dials, accepts)
	challenge := p.pass(p.accepted, hello)
	dials.Secrets.Set(keys("no"))
	proceed := p.pass(p.dialling, challenge)
	accepts.Secrets.Set(keys("no"))
	if proceed.Verdict != ToSupersede {
		t.Fatalf("%+v", proceed)
	}
	if step := p.pass(p.accepted, p.dialling.Proceed(RivalGone, "")); step.Verdict != ToSupersede {
		t.Errorf("%+v", step)
	}
}

// Nobody gets in with a proof from another handshake, nor with this node's own.
func TestReplayedAndReflectedProofs(t *testing.T) {
	p, hello := shake(t, newSelf("n0"), newSelf("n1"))
	challenge := p.pass(p.accepted, hello)
	p.pass(p.dialling, challenge)
	proof := p.dialling.Proceed(RivalGone, "")

	second := Accept(newSelf("n1"), 11) // the same node, asked with a copy of the hello
	if step := second.Handle(codec.KindPeerHello, hello.Send[codec.PrefixLen:]); step.Verdict != ToWait {
		t.Fatalf("%+v", step)
	}
	if step := second.Handle(codec.KindPeerProof, proof.Send[codec.PrefixLen:]); step.Verdict != ToRefuse || step.Note != NoteBadSecret {
		t.Errorf("a replayed proof: %+v", step)
	}
	again, _ := Dial(newSelf("n0"), 10, "n1")
	if step := p.pass(again, challenge); step.Verdict != ToRefuse || step.Note != NoteBadSecret {
		t.Errorf("a replayed challenge: %+v", step)
	}

	third := Accept(newSelf("n1"), 11)
	var own codec.PeerChallenge
	_, frame := body(t, third.Handle(codec.KindPeerHello, hello.Send[codec.PrefixLen:]))
	if err := codec.DecodePeerChallenge(frame, &own); err != nil {
		t.Fatal(err)
	}
	reflected := codec.AppendPeerProof(nil, own.Proof)
	if step := third.Handle(codec.KindPeerProof, reflected[codec.PrefixLen:]); step.Verdict != ToRefuse || step.Note != NoteBadSecret {
		t.Errorf("a reflected proof: %+v", step)
	}
}

func TestSettingsOfSecrets(t *testing.T) {
	say := func(values ...string) *codec.PeerIdentity {
		id := &codec.PeerIdentity{Since: 1, Settings: []codec.Setting{{Name: SettingSecrets, Value: values[0]}}}
		for _, v := range values[1:] {
			id.Settings = append(id.Settings, codec.Setting{Name: SettingSecret, Value: v})
		}
		return id
	}
	older := func(value string) *codec.PeerIdentity {
		return &codec.PeerIdentity{Since: 1, Settings: []codec.Setting{{Name: SettingSecret, Value: value}}}
	}
	for _, v := range []struct {
		a, b    *codec.PeerIdentity
		differs bool
	}{
		{say("o", "o"), say("o", "o"), false},
		{say("o", "o"), say("o n"), false},
		{say("n o"), say("o n"), false},
		{say("n o"), say("n", "n"), false},
		{say("o", "o"), say("n o"), true},
		{say("o n"), say("n", "n"), true},
		{say("o", "o"), say("n", "n"), true},
		{say("o", "o"), say("", ""), true},
		{say("o", "o"), older("o"), false},
		{say("n", "n"), older("o"), true},
		{say("o n"), older("o"), false},
	} {
		for _, d := range []string{disagreement(v.a, v.b), disagreement(v.b, v.a)} {
			if (d != "") != v.differs {
				t.Errorf("%v and %v: %q", v.a.Settings, v.b.Settings, d)
			}
		}
	}
}
