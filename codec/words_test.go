package codec

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestCodeRanges checks for every value of a code what its range says (S4).
func TestCodeRanges(t *testing.T) {
	for i := range 256 {
		c := Code(i)
		want, safe := DeliveredUnknown, false
		switch i / 16 {
		case 0, 1:
			want = DeliveredYes
		case 2, 3:
			want, safe = DeliveredNo, true
		case 4:
			want = DeliveredNo
		}
		if i == 0 {
			want = DeliveredUnknown
		}
		if c.Delivered() != want || c.SafeToRetry() != safe {
			t.Errorf("%v (%d): delivered %v, safe %v; want %v, %v", c, i, c.Delivered(), c.SafeToRetry(), want, safe)
		}
		// What is not delivered for now, or unknown, may pass by itself; but an ID that nobody
		// holds stays unheld.
		if temporary := (safe || i >= 80) && c != CodeNoRoute; c.Temporary() != temporary {
			t.Errorf("%v (%d): temporary %v, want %v", c, i, c.Temporary(), temporary)
		}
	}
	for _, c := range Outcomes() {
		if c == CodeOK || strings.HasPrefix(c.String(), "code_") {
			t.Errorf("%v is no outcome", c)
		}
	}
	if n := len(Outcomes()); n != 12 {
		t.Errorf("%d outcomes, semantics.md has 12", n)
	}
	for d, want := range map[Delivered]string{DeliveredYes: "yes", DeliveredNo: "no", DeliveredUnknown: "unknown", 9: "unknown"} {
		if d.String() != want {
			t.Errorf("%d: %v, want %s", d, d, want)
		}
	}
}

// TestWords: every number of a kind, code or fault has a word, no two the same, and an unknown one
// tells its number.
func TestWords(t *testing.T) {
	for _, c := range []struct {
		name  string
		word  func(i int) string
		known int
	}{
		{"kind", func(i int) string { return Kind(i).String() }, len(layouts)},
		{"code", func(i int) string { return Code(i).String() }, 1 + 12 + 3},
		{"fault", func(i int) string { return Fault(i).String() }, 22},
	} {
		seen, known := map[string]bool{}, 0
		for i := range 256 {
			word := c.word(i)
			if seen[word] {
				t.Errorf("%s %d: %q is there twice", c.name, i, word)
			}
			seen[word] = true
			if word != fmt.Sprintf("%s_%d", c.name, i) {
				known++
			}
		}
		if known != c.known {
			t.Errorf("%d known %ss, want %d", known, c.name, c.known)
		}
	}
	for _, l := range layouts {
		if strings.HasPrefix(l.kind.String(), "kind_") {
			t.Errorf("kind %d has no word", l.kind)
		}
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*Error{
		"bad_value: send.to at byte 3: the ID is empty": {FaultBadValue, KindSend, "to", 3, "the ID is empty"},
		"too_deep: frame.payload at byte 0: x":          {FaultTooDeep, 0, "payload", 0, "x"},
		"bad_length: bye at byte 2: x":                  {FaultBadLength, KindBye, "", 2, "x"},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e, want)
		}
	}
}

// TestLongTextsAreCut: texts for people must not make a frame that its receiver refuses.
func TestLongTextsAreCut(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("x", MaxReason), strings.Repeat("x", MaxReason+1), strings.Repeat("é", 200), "x" + strings.Repeat("é", 200),
		strings.Repeat("\U0001F600", 100), "xyz" + strings.Repeat("\U0001F600", 100), strings.Repeat("\x80", 1000),
	} {
		for kind, frame := range map[Kind][]byte{
			KindError:    AppendError(nil, &ErrorFrame{Message: text}),
			KindAck:      AppendAck(nil, &Ack{Code: CodeRejected, Reason: []byte(text)}),
			KindOutcome:  AppendOutcome(nil, &Outcome{Reason: []byte(text)}),
			KindOutcomes: AppendOutcomes(nil, 1, AppendOneOutcome(nil, &Outcome{Reason: []byte(text)})),
			KindHello:    AppendHello(nil, &Hello{Agent: []byte(text)}),
		} {
			v, err := decodeFields(kind, bodyOf(frame))
			if err != nil {
				t.Errorf("%v: %v", kind, err)
				continue
			}
			if kind == KindOutcomes {
				v = v[0].([]any)[0].([]any)
			}
			i := map[Kind]int{KindOutcomes: 2, KindError: 4, KindAck: 2, KindOutcome: 2, KindHello: 7}[kind]
			got := v[i].(string)
			if !strings.HasPrefix(text, got) || len(got) < MaxReason-utf8.UTFMax || utf8.ValidString(text) && !utf8.ValidString(got) {
				t.Errorf("%v: %q became %q", kind, text, got)
			}
		}
	}
}

// TestPatchDeliverTTL patches behind every length of the fields before the TTL.
func TestPatchDeliverTTL(t *testing.T) {
	const old, patched = 7, 0xfedcba98
	for _, token := range []int{0, 1, MaxToken} {
		for to := 1; to <= MaxID; to++ {
			for from := 0; from <= MaxID; from += 1 + from%2*29 + from/31*31 {
				want := Deliver{Token: make([]byte, token), To: bytes.Repeat([]byte{0xce}, to), From: bytes.Repeat([]byte{0xce}, from),
					TTL: old, Flags: 255, Epoch: maxEpoch, Payload: []byte("payload")}
				body := bodyOf(AppendDeliver(nil, &want))
				var f Deliver
				if err := DecodeDeliver(body, &f); err != nil {
					t.Fatal(err)
				}
				PatchDeliverTTL(body, &f, patched)
				want.TTL = patched
				if !bytes.Equal(body, bodyOf(AppendDeliver(nil, &want))) {
					t.Fatalf("token %d, to %d, from %d: %x", token, to, from, body)
				}
			}
		}
	}
}

// TestPatchManyTTL patches behind every length of the field before the TTL.
func TestPatchManyTTL(t *testing.T) {
	to := []Recipient{{Token: []byte{1}, To: []byte("bob"), Epoch: 1, Session: make([]byte, SessionIDLen), Why: KindNotMine}}
	for _, kind := range []Kind{KindDeliverMany, KindNotHereMany, KindForwardMany, KindReturnMany} {
		for from := range MaxID + 1 {
			want := DeliverMany{From: bytes.Repeat([]byte{0xce}, from), TTL: 7, Flags: 255, Payload: []byte("payload")}
			body := bodyOf(AppendDeliverMany(nil, kind, &want, to))
			var f DeliverMany
			if err := DecodeDeliverMany(body, kind, 1, &f); err != nil {
				t.Fatal(err)
			}
			PatchManyTTL(body, &f, 0xfedcba98)
			want.TTL = 0xfedcba98
			if !bytes.Equal(body, bodyOf(AppendDeliverMany(nil, kind, &want, to))) {
				t.Fatalf("%v, from %d: %x", kind, from, body)
			}
		}
	}
}

// TestMulticastSize: whatever comes of a multicast on its way has no more bytes than it counts,
// with the longest tokens that nodes give (see docs/peer-protocol.md), so that it is enough to
// check the size where the message comes in.
func TestMulticastSize(t *testing.T) {
	checkMulticastSize(t, 1<<16, 1, 32, 65536) // the list's head has five bytes
	rapid.Check(t, func(t *rapid.T) {
		length := func(label string, edges ...int) int {
			return rapid.OneOf(rapid.SampledFrom(edges), rapid.IntRange(edges[0], edges[len(edges)-1])).Draw(t, label)
		}
		checkMulticastSize(t, length("IDs", 0, 1, 15, 16, 200), length("ID", 1, 31, 32, MaxID),
			length("from", 0, 31, 32, MaxID), length("payload", 0, 255, 256, 65535, 65536))
	})
}

// checkMulticastSize encodes a multicast to n IDs of all lengths, from size on.
func checkMulticastSize(t interface {
	Helper()
	Fatalf(string, ...any)
}, n, size, fromLen, payloadLen int) {
	t.Helper()
	const clientToken, peerToken = 44, 26
	longest := strings.Repeat("x", MaxID)
	ids := make([]string, n)
	for i := range ids {
		ids[i] = longest[:1+(size-1+i)%MaxID]
	}
	recipients := func(token int) []Recipient {
		all, tok, session := make([]Recipient, n), make([]byte, token), make([]byte, SessionIDLen)
		for i := range all {
			all[i] = Recipient{tok, []byte(ids[i]), maxEpoch, session, KindNotAttached}
		}
		return all
	}
	from, payload := make([]byte, fromLen), make([]byte, payloadLen)
	bound := MulticastSize(len(payload), ids)
	buf := make([]byte, 0, bound)
	if got := len(AppendMulticast(buf, &Multicast{Seq: maxUint, From: from, TTL: maxTTL, Flags: 255, Payload: payload}, ids)); got > bound {
		t.Fatalf("multicast: %d bytes, MulticastSize says %d", got, bound)
	}
	many := DeliverMany{From: from, TTL: maxTTL, Flags: 255, Payload: payload}
	for kind, token := range map[Kind]int{
		KindDeliverMany: clientToken, KindNotHereMany: clientToken, KindForwardMany: peerToken, KindReturnMany: peerToken,
	} {
		if got := len(AppendDeliverMany(buf, kind, &many, recipients(token))); got > bound {
			t.Fatalf("%v: %d bytes, MulticastSize says %d", kind, got, bound)
		}
	}
}

func TestDeliverSize(t *testing.T) {
	for _, token := range []int{0, MaxToken} {
		for _, to := range []int{1, 31, 32, MaxID} {
			for _, from := range []int{0, 31, 32, MaxID} {
				for _, payload := range []int{0, 255, 256, 65535, 65536} {
					f := Deliver{Token: make([]byte, token), To: make([]byte, to), From: make([]byte, from), TTL: 1<<32 - 1,
						Flags: 255, Epoch: maxEpoch, Payload: make([]byte, payload)}
					got, bound := len(AppendDeliver(nil, &f)), DeliverSize(&f)
					if got > bound || bound-got > 16 {
						t.Errorf("%d, %d, %d, %d: %d bytes, DeliverSize says %d", token, to, from, payload, got, bound)
					}
					if got-payload > FrameOverhead {
						t.Errorf("%d, %d, %d, %d: %d bytes, over FrameOverhead", token, to, from, payload, got)
					}
				}
			}
		}
	}
}
