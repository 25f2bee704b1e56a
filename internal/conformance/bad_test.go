package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/codec"
)

// bad is a fault of a client and the words that it is reported with.
type bad struct {
	scenario string
	fault    string
	client   Client
	section  string
	words    string // of expected or got, whichever way it shows
	frame    bool   // an offending frame is shown
}

func TestFaultsAreFound(t *testing.T) {
	cases := badClients()
	verdicts := make([]chan Verdict, len(cases))
	scenarios := map[string]Scenario{}
	for _, s := range Scenarios() {
		scenarios[s.Name] = s
	}
	slots := make(chan struct{}, 40) // more at once are slow to start on a busy machine
	for i, b := range cases {
		s, ok := scenarios[b.scenario]
		if !ok {
			t.Fatalf("no scenario %s", b.scenario)
		}
		verdicts[i] = make(chan Verdict, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			verdicts[i] <- Run(t.Context(), Config{Client: b.client, Arrival: time.Minute, Patience: 8 * time.Second}, []Scenario{s})[0]
		}()
	}
	for i, b := range cases {
		delete(scenarios, b.scenario)
		v := <-verdicts[i]
		t.Run(b.scenario+"/"+b.fault, func(t *testing.T) {
			f := v.Fault
			if v.Result != Fail || f.Section != b.section || !strings.Contains(f.Expected+"\n"+f.Got, b.words) || (f.Frame != "") != b.frame {
				var text strings.Builder
				v.Write(&text)
				t.Errorf("want %s, %q, frame %v:\n%s", b.section, b.words, b.frame, text.String())
			}
		})
	}
	for name := range scenarios {
		t.Errorf("no client commits the fault that %s is about", name)
	}
}

// endsAtOnce is a program that ends once it has been welcomed.
func endsAtOnce(_ context.Context, node, _ string) (string, error) {
	nc, err := net.Dial("tcp", node)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	if _, err = nc.Write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1, Features: codec.FeatureMulticast | codec.FeatureShortNotHere, Heartbeat: 1000})); err == nil {
		_, err = nc.Read(make([]byte, 1))
	}
	return "", cmp.Or(err, errors.New("out of memory"))
}

func badClients() []bad {
	stray := codec.AppendPong(nil, 1)
	return []bad{
		{"hello", "ends when it is welcome", endsAtOnce, contractSection, "it ended: out of memory", false},
		{"hello", "sends before welcome", out(behind(codec.KindHello, stray)), secStates, "waits for welcome", true},
		{"hello", "asks for a feature of the future", out(hello(func(h *codec.Hello) { h.Features |= 1 << 20 })), secHello, "feature bits", true},
		{"hello", "sets a flag of the future", out(hello(func(h *codec.Hello) { h.Flags |= 1 << 5 })), secHello, "flags besides replace", true},
		{"hello", "makes a session up", out(hello(func(h *codec.Hello) { h.Session = []byte("0123456789abcdef") })), secReconnect, "of an earlier welcome", true},
		{"limits", "does not read max_ids", in(welcome(func(w *codec.Welcome) { w.Limits.MaxIDs = 1000 })), secLimits, "at most max_ids", true},
		{"limits", "does not read max_payload", in(welcome(func(w *codec.Welcome) { w.Limits.MaxPayload, w.Limits.MaxFrame = 1<<20, 2<<20 })), secLimits, "over max_payload", true},
		{"ten-limits", "takes a default for what is not announced", in(welcome(func(w *codec.Welcome) { w.Limits.MaxMulticast = 100 })), secMulticast, "max_multicast is 0", true},
		{"ping", "does not answer", out(drop(codec.KindPong)), secHeart, "answers a ping", false},
		{"ping", "answers with another nonce", out(instead(codec.KindPong, codec.AppendPong(nil, 1<<40))), secHeart, "answers a ping", false},
		{"promise", "forgets it", out(drop(codec.KindPing)), secHeart, "also while it hears from the node", false},
		{"half-open", "does not ping", out(drop(codec.KindPing)), secHeart, "the client pings", false},
		{"half-open", "never gives up", sdk(func(cfg *client.Config) { cfg.Dialer = dialLively }), secHeart, "gives up", false},
		{"half-open", "does not replace", out(hello(func(h *codec.Hello) { h.Flags = 0 })), secReconnect, "replace set", false},
		{"reads-while-writing", "reads no more", sdk(func(cfg *client.Config) { cfg.Dialer = dialDeaf }), secPolite, "its own writing", false},
		{"reads-while-writing", "loses an ack", out(everyTenth(codec.KindAck)), secPolite, "acks all", false},
		{"future-fields", "takes the connection for broken", closesOn(func(k codec.Kind, body []byte) bool { return body[0] == 0xdd }), contractSection, "it ended", false},
		{"future-kinds", "takes the connection for broken", closesOn(func(k codec.Kind, _ []byte) bool { return k >= 100 }), secFrames, "after a kind that it does not know", false},
		{"future-codes", "takes every unknown code for timeout", in(outcome(func(f *codec.Outcome) {
			if f.Code.String() == fmt.Sprintf("code_%d", f.Code) {
				f.Code = codec.CodeTimeout
			}
		})), secCodes, "says delivered", false},
		{"future-faults", "closes on every error", closesOn(func(k codec.Kind, _ []byte) bool { return k == codec.KindError }), secFaults, "after an error without bit 0", false},
		{"pieces", "drops the last frame of a segment", in(drop(codec.KindPing)), secFrames, "the last frame of a segment", false},
		{"no-frames", "ignores them", in(drop(codec.KindBye)), secFrames, "a kind that only clients send", false},
		{"bad-utf8", "replaces bad bytes", out(returning(func(f *codec.Deliver) { f.From = []byte(strings.ToValidUTF8(string(f.From), "\uFFFD")) })), secNotHere, "the from of the deliver, byte by byte", true},
		{"kick", "obeys every kick", in(kicking(func(_ string, epoch *uint64) bool {
			*epoch += 1 << 51
			return true
		})), secMessages, "accepts what is delivered", true},
		{"kick", "ignores kicks", in(drop(codec.KindKick)), secBindings, "hears of a kick", false},
		{"kick", "binds again", out(behindReport("kicked alice", bindFrames(Alice, 1)...)), secBindings, "never again by itself after a kick", true},
		{"kick-during-bind", "forgets the kick", in(kicking(func(id string, _ *uint64) bool { return id != "carol" })), secBindings, "kicked at once", false},
		{"stale-delivers", "does not look at the epoch", in(delivered(func(f *codec.Deliver) {
			if string(f.To) == Alice {
				f.Epoch = 1
			}
		})), secMessages, "not under that epoch", true},
		{"stale-delivers", "returns older epochs", in(delivered(func(f *codec.Deliver) {
			if f.Epoch == 1 {
				f.Epoch = 1<<53 - 1
			}
		})), secMessages, "under an epoch that is not greater", true},
		{"whole-not-here", "returns another payload", out(returning(func(f *codec.Deliver) { f.Payload = append([]byte{}, "changed"...) })), secNotHere, "the payload of the deliver", true},
		{"whole-not-here", "returns ttl 0", out(returning(func(f *codec.Deliver) { f.TTL = 0 })), secNotHere, "the ttl of the deliver", true},
		{"whole-not-here", "returns it without content all the same", out(returning(func(f *codec.Deliver) { *f = f.Short() })), secNotHere, "the from of the deliver", true},
		{"stale-delivers", "returns half of it", out(returning(func(f *codec.Deliver) { f.Payload = nil })), secNotHere, "the payload of the deliver", true},
		{"stale-delivers", "returns nothing", out(drop(codec.KindNotHere)), secMessages, "not_here for a message", false},
		{"unbind", "names epoch 0", out(unbindsZero), secBindings, "unbind names the epoch", true},
		{"bind-refused", "retries", out(behindReport("bound carol taken", bindFrames("carol", 1)...)), secBindings, "never again by itself after a kick or a refusal", true},
		{"bind-unavailable", "tries without a pause", out(behindBind("user-registry_unavailable", bindFrames("user-registry_unavailable", 30)...)), secBindings, "with back-off", true},
		{"bind-interrupted", "forgets the bind", out(dropReports("bound carol")), secBindings, "repeats the bind, or notifies", false},
		{"reassert", "ignores it", in(drop(codec.KindReassert)), secReassert, "answers reassert", false},
		{"reassert", "binds anew", out(binding(func(all []codec.IDEpoch) []codec.IDEpoch {
			for i := range all {
				all[i].Epoch = 0
			}
			return all
		})), secBindings, "it asserts the epoch that it holds", true},
		{"reassert", "invents an ID", out(binding(func(all []codec.IDEpoch) []codec.IDEpoch {
			if all[0].Epoch > 0 {
				all[0].ID = []byte("mallory")
			}
			return all
		})), secBindings, "asserts only what it holds", true},
		{"reassert", "makes an epoch up", out(binding(func(all []codec.IDEpoch) []codec.IDEpoch {
			if all[0].Epoch > 0 {
				all[0].Epoch++
			}
			return all
		})), secBindings, "under exactly the epoch", true},
		{"reassert-lost", "takes superseded for ok", in(supersededIsOK), secBindings, "is a kick, whatever its epoch", false},
		{"acks", "acks twice", out(twice(codec.KindAck)), secMessages, "exactly once", true},
		{"acks", "never acks", withoutAckTo("the longest token"), secMessages, "acks a message", false},
		{"acks", "cuts tokens", out(acking(func(f *codec.Ack) { f.Token = f.Token[:min(len(f.Token), 8)] })), secMessages, "byte by byte", true},
		{"acks", "acks what wants no ack", in(delivered(func(f *codec.Deliver) {
			if len(f.Token) > 0 {
				f.Flags |= codec.FlagAck
			}
		})), secMessages, "bit 0 clear", true},
		{"acks", "accepts what was rejected", out(acking(func(f *codec.Ack) { f.Code, f.Reason = codec.CodeAcked, nil })), secMessages, "rejected", true},
		{"outcomes", "believes the second outcome", in(secondOutcome()), secEnding, "first outcome", false},
		{"in-flight", "does not read max_in_flight", in(welcome(func(w *codec.Welcome) { w.Limits.MaxInFlight = 1000 })), secPolite, "max_in_flight", true},
		{"credit", "does not read the credit", in(welcome(func(w *codec.Welcome) { w.Limits.Credit = 1 << 20 })), secMessages, "than the credit", true},
		{"credit", "ignores new credit", in(drop(codec.KindCredit)), secMessages, "new credit", false},
		{"over-limit", "sends again", out(doubles("receiver-")), secEnding, "never sends a message again", true},
		{"over-limit", "takes overflow for the end", closesOn(func(k codec.Kind, body []byte) bool {
			var f codec.Outcome
			return k == codec.KindOutcome && codec.DecodeOutcome(body, &f) == nil && f.Code == codec.CodeOverflow
		}), secOver, "not delivered", false},
		{"multicast", "returns nothing", out(drop(codec.KindNotHereMany)), secMulticast, "not_here_many", false},
		{"multicast", "knows no outcomes", in(drop(codec.KindOutcomes)), secMulticast, "an outcome of its own", false},
		{"watch", "does not watch again", later(nil, drop(codec.KindWatch)), secWatching, "watches again", false},
		{"watch", "ignores changes", in(drop(codec.KindChanged)), secWatching, "online", false},
		{"reset", "sends again", out(sendsAgain()), secEnding, "never sends a message again", true},
		{"fenced", "begins anew", later(nil, hello(func(h *codec.Hello) { h.Session, h.Secret = nil, nil })), secReconnect, "the session and the secret", false},
		{"fenced", "says another secret", out(hello(func(h *codec.Hello) {
			if len(h.Secret) > 0 {
				h.Secret = make([]byte, codec.SecretLen)
			}
		})), secReconnect, "the secret that welcome gave", true},
		{"fenced", "binds what stands", later(welcome(func(w *codec.Welcome) { w.Flags = 0 }), nil), secReconnect, "its bindings stand", true},
		{"not-resumed", "asserts nothing", out(dropsAsserts), secReconnect, "re-asserts all IDs", false},
		{"session-ended", "resumes what has ended", in(closing(codec.FaultFenced)), secReconnect, "forgets the session", true},
		{"resume-refused", "goes on with the session", in(closing(codec.FaultFenced)), secReconnect, "forgets the session", true},
		{"unauthenticated", "does not give up", storm(50 * time.Millisecond), secReconnect, "does not connect again", false},
		{"bad-version", "does not give up", storm(50 * time.Millisecond), secReconnect, "does not connect again", false},
		{"replaced", "takes it for any other error", in(closing(codec.FaultFenced)), secReconnect, "does not connect again", false},
		{"closed-after-welcome", "dials without pauses", storm(10 * time.Millisecond), secReconnect, "the pauses grow", false},
		{"refused-for-a-while", "dials without pauses", storm(10 * time.Millisecond), secReconnect, "the pauses grow", false},
		{"refused-for-a-while", "gives up", in(closing(codec.FaultReplaced)), secReconnect, "retries", false},
		{"drain", "stays", in(drop(codec.KindDrain)), secDrain, "moves to", false},
		{"drain", "does not leave", out(drop(codec.KindLeave)), secMoving, "says leave", false},
		{"drain", "closes before it has answered", withoutAckTo("the last one here"), secMoving, "answered there", false},
		{"drain-not-resumed", "asserts nothing", out(dropsAsserts), secReconnect, "re-asserts all IDs", false},
		{"drain-alone", "leaves at once", closesOn(func(k codec.Kind, _ []byte) bool { return k == codec.KindDrain }), secDrain, "with no other node", false},
		{"relogin", "sets replace", later(nil, hello(func(h *codec.Hello) { h.Flags |= codec.HelloReplace })), secRelogin, "does not set replace", false},
		{"relogin", "does not leave", out(drop(codec.KindLeave)), secMoving, "says leave", false},
		{"relogin", "begins a new session", later(nil, hello(func(h *codec.Hello) { h.Session, h.Secret = nil, nil })), secReconnect, "the session and the secret", false},
		{"members", "does not listen", in(drop(codec.KindMembers)), secMembers, "goes to the other node", false},
	}
}
