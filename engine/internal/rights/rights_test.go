package rights

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"distmsg/codec"
)

func TestMatch(t *testing.T) {
	for _, try := range []struct {
		list    []string
		yes, no []string
	}{
		{nil, []string{"alice", "*", "ü"}, nil},
		{[]string{}, nil, []string{"alice", "*"}},
		{[]string{"alice"}, []string{"alice"}, []string{"alic", "alicea", "Alice", "*", "alice*", ""}},
		{[]string{"u-*"}, []string{"u-", "u-1", "u-*", "u-\xff\xff"}, []string{"u", "v", "U-1", "u.1", ""}},
		{[]string{"x", "*"}, []string{"anything"}, nil},
		{[]string{"a*", "ab*", "abc*"}, []string{"a", "ab", "abd", "az"}, []string{"b", ""}},
		{[]string{"ab*", "ad*", "a"}, []string{"a", "ab", "abz", "ad1"}, []string{"ac", "ae", "aa", "b"}},
		{[]string{"a**"}, []string{"a*", "a*b"}, []string{"a", "ab"}}, // only the last * is special
		{[]string{"a*b"}, []string{"a*b"}, []string{"axb", "ab"}},
	} {
		p, err := Compile(try.list)
		if err != nil {
			t.Fatal(try.list, err)
		}
		for _, id := range try.yes {
			if !p.Match(id) {
				t.Errorf("%q: %q does not match", try.list, id)
			}
		}
		for _, id := range try.no {
			if p.Match(id) {
				t.Errorf("%q: %q matches", try.list, id)
			}
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, list := range [][]string{{""}, {"a", ""}, {strings.Repeat("a", codec.MaxID+1)}, {strings.Repeat("a", codec.MaxID+1) + "*"}} {
		if _, err := Compile(list); err == nil {
			t.Errorf("%.30q compiles", list)
		}
	}
	for _, pattern := range []string{strings.Repeat("a", codec.MaxID), strings.Repeat("a", codec.MaxID) + "*"} {
		if p, err := Compile([]string{pattern}); err != nil || !p.Match(strings.Repeat("a", codec.MaxID)) {
			t.Errorf("%.30q: %v", pattern, err)
		}
	}
}

// Patterns match what a naive search through the list finds.
func TestMatchModel(t *testing.T) {
	word := func(r *rand.Rand) string {
		b := make([]byte, r.IntN(5))
		for i := range b {
			b[i] = "abc*\xff"[r.IntN(5)]
		}
		return string(b)
	}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		list := []string{}
		for range r.IntN(8) {
			if w := word(r); w != "" {
				list = append(list, w)
			}
		}
		p, err := Compile(list)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			id, want := word(r), false
			for _, pattern := range list {
				prefix, isPrefix := strings.CutSuffix(pattern, "*")
				want = want || pattern == id && !isPrefix || isPrefix && strings.HasPrefix(id, prefix)
			}
			if got := p.Match(id); got != want {
				t.Fatalf("seed %d: %q, %q: %v", seed, list, id, got)
			}
		}
	}
}

func TestString(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("user-%d-*", i))
	}
	for _, try := range []struct {
		list []string
		want string
	}{
		{nil, "*"}, {[]string{}, "none"}, {[]string{"b*", "a"}, "b*, a"},
		{[]string{strings.Repeat("ü", 100)}, strings.Repeat("ü", 60) + "…"},
	} {
		if p, err := Compile(try.list); err != nil || p.String() != try.want {
			t.Errorf("%q: %q, %v", try.list, p, err)
		}
	}
	p, err := Compile(many)
	if got := p.String(); err != nil || len(got) > 2*textSize || !strings.HasPrefix(got, "user-0-*, user-1-*, ") || !strings.HasSuffix(got, " more") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestMatchAllocs(t *testing.T) {
	p, err := Compile([]string{"alice", "a-*", "b-*", "c-*"})
	if err != nil {
		t.Fatal(err)
	}
	id := "b-" + strings.Repeat("x", 100)
	if n := testing.AllocsPerRun(100, func() {
		if !p.Match(id) || p.Match("d") {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
