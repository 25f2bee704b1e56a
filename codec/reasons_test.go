package codec

import (
	"slices"
	"strings"
	"testing"
)

// readReasons lists the reasons in a bound frame.
func readReasons(t *testing.T, frame []byte) (all []string, results int) {
	t.Helper()
	var f Results
	if err := DecodeResults(frame[PrefixLen:], KindBound, &f); err != nil {
		t.Fatal(err)
	}
	for r, ok := f.Reasons.Next(); ok; r, ok = f.Reasons.Next() {
		all = append(all, string(rune('0'+r.Index))+" "+string(r.Text))
	}
	return all, f.All.Len()
}

// The answers to all requests may say why.
func TestReasonsOfAllAnswers(t *testing.T) {
	for _, kind := range []Kind{KindBound, KindUnbound, KindFound, KindWatched} {
		var f Results
		frame := AppendReasons(nil, kind, 1, []Result{{CodeOverflow, 0}}, []Reason{{0, []byte("too many")}})
		if err := DecodeResults(frame[PrefixLen:], kind, &f); err != nil {
			t.Fatal(err)
		}
		if r, ok := f.Reasons.Next(); !ok || string(r.Text) != "too many" {
			t.Errorf("%v: %q, %v", kind, r.Text, ok)
		}
	}
}

// TestReasons: a bound may say why, in a field that stands behind all the others; without reasons
// it is the frame that it was.
func TestReasons(t *testing.T) {
	results := []Result{{CodeDenied, 0}, {CodeOK, 5}, {CodeDenied, 0}}
	plain := AppendResults(nil, KindBound, 1, results)
	if got := AppendReasons(nil, KindBound, 1, results, nil); !slices.Equal(got, plain) {
		t.Errorf("without reasons: %x", got)
	}
	long := strings.Repeat("ä", MaxReason)
	frame := AppendReasons([]byte("before"), KindBound, 1, results, []Reason{{0, []byte("no")}, {2, []byte(long)}})[len("before"):]
	all, n := readReasons(t, frame)
	if want := []string{"0 no", "2 " + long[:MaxReason-1]}; !slices.Equal(all, want) || n != 3 {
		t.Errorf("%d results, reasons %q", n, all)
	}
	// What is no list of reasons is ignored, and does not outlive its frame in f.
	for _, other := range [][]byte{{0xc0}, {0x91, 0x05}, {0x91, 0x92, 0xa0, 0xa0}, {0x90}} {
		body := append(slices.Clone(plain[PrefixLen:]), other...)
		body[0]++ // one field more
		if all, n := readReasons(t, append(make([]byte, PrefixLen), body...)); len(all) > 0 || n != 3 {
			t.Errorf("%x: %d results, reasons %q", other, n, all)
		}
	}
	var f Results
	for _, body := range [][]byte{frame[PrefixLen:], plain[PrefixLen:]} {
		if err := DecodeResults(body, KindBound, &f); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := f.Reasons.Next(); ok {
		t.Error("the reasons of another frame")
	}
}

// A refuse may say why, behind all other fields.
func TestReasonOfARefuse(t *testing.T) {
	token := []byte("12345678")
	for _, text := range []string{"", "full"} {
		frame := AppendRefuse(nil, token, CodeOverflow, []byte(text))
		got, code, reason, err := DecodeRefuse(frame[PrefixLen:])
		if err != nil || string(got) != string(token) || code != CodeOverflow || string(reason) != text {
			t.Errorf("%q: token %x, %v, reason %q, %v", text, got, code, reason, err)
		}
	}
}
