package identity

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"distmsg/engine"
)

func TestLimits(t *testing.T) {
	got, err := Limits{"messages_per_second": 100, "messages_burst": 200, "bytes_per_second": 1 << 20}.engine()
	if err != nil || got.Messages != (engine.Rate{PerSecond: 100, Burst: 200}) || got.Bytes != (engine.Rate{PerSecond: 1 << 20}) {
		t.Errorf("got %+v, %v", got, err)
	}
	counts, err := Limits{"connections": 1, "sessions": 2, "ids": 3, "watched": 4, "in_flight": 5, "pending_bytes": 6}.engine()
	if want := (engine.Limits{Connections: 1, Sessions: 2, IDs: 3, Watched: 4, InFlight: 5, PendingBytes: 6}); err != nil || counts != want {
		t.Errorf("got %+v, %v, want %+v", counts, err, want)
	}
	for name, tc := range map[string]struct {
		limits Limits
		want   string
	}{
		"unknown":      {Limits{"messages": 1}, "messages_per_second"},
		"none":         {Limits{"messages_per_second": 0}, "over 0"},
		"negative":     {Limits{"messages_per_second": -1}, "over 0"},
		"half":         {Limits{"messages_per_second": 0.5}, "over 0"},
		"huge":         {Limits{"messages_per_second": 1e300}, "over 0"},
		"burst of any": {Limits{"messages_burst": 10}, "needs messages_per_second"},
	} {
		if _, err := tc.limits.engine(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

// Every limit of the engine has a name, whatever is added to them, and the manual lists it.
func TestEveryLimitHasAName(t *testing.T) {
	var limits engine.Limits
	fields := limitFields(&limits)
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, field := range fields {
		if !strings.Contains(string(manual), "`"+name+"`") {
			t.Errorf("docs/operations.md does not list %s", name)
		}
		if !field.CanInt() || !field.CanSet() {
			t.Errorf("%s is a %s, and cannot be set to a whole number", name, field.Type())
			continue
		}
		field.SetInt(1)
	}
	for i := range reflect.TypeFor[engine.Limits]().NumField() {
		if reflect.ValueOf(limits).Field(i).IsZero() {
			t.Errorf("%s has no name among %s", reflect.TypeFor[engine.Limits]().Field(i).Name, slices.Sorted(maps.Keys(fields)))
		}
	}
}
