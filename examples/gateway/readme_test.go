package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"distmsg/codec"
)

// The table of outcomes in README.md is what the code does.
func TestReadmeTable(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	said := make(map[string]int)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d{3}) \\|$").FindAllSubmatch(readme, -1) {
		said[string(row[1])], _ = strconv.Atoi(string(row[2]))
	}
	outcomes := []codec.Code{
		codec.CodeAcked, codec.CodeRejected, codec.CodeNoRoute, codec.CodeUnreachable, codec.CodeOverflow, codec.CodeExpired,
		codec.CodeDenied, codec.CodeTooLarge, codec.CodeDraining, codec.CodeRegistryUnavailable, codec.CodeTimeout, codec.CodeLost,
	}
	for _, code := range outcomes {
		if got := httpStatus(code); said[code.String()] != got {
			t.Errorf("%s is %d, README.md says %d", code, got, said[code.String()])
		}
	}
	if len(said) != len(outcomes) {
		t.Errorf("README.md has %d outcomes, want %d", len(said), len(outcomes))
	}
}
