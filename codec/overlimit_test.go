package codec

import "testing"

func TestLimitReason(t *testing.T) {
	for _, tc := range []struct {
		name string
		wait uint64
		want string
	}{
		{"identity-messages", 250, "limit identity-messages: try again in 250 ms"},
		{"identity-ids", 0, "limit identity-ids"},
	} {
		reason := string(AppendLimitReason(nil, tc.name, tc.wait))
		if name, wait := ParseLimitReason(reason); reason != tc.want || name != tc.name || wait != tc.wait {
			t.Errorf("%q names %q and %d ms", reason, name, wait)
		}
	}
	for _, reason := range []string{
		"", "limit ", "the limit identity-messages", "limit of the receiver's queue", "limit a b: try again in 1 ms",
		"limit a: try again in ms", "limit a: try again in 1 s", "limit a: try again in -1 ms", "limit a: try again in 99999999999 ms",
		"limit a: later",
	} {
		if name, wait := ParseLimitReason(reason); name != "" || wait != 0 {
			t.Errorf("%q names %q and %d ms", reason, name, wait)
		}
	}
}
