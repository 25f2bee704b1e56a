package main

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"distmsg/engine"
)

func TestLimitFlags(t *testing.T) {
	var o limitOptions
	f := pflag.NewFlagSet("relay", pflag.ContinueOnError)
	o.addFlags(f)
	err := f.Parse(strings.Fields("--max-conn-messages=1 --max-conn-bytes=2KiB --max-identity-messages=3 --max-identity-bytes=4MiB --max-identity-lookups=5 " +
		"--max-identity-conns=6 --max-identity-sessions=7 --max-identity-ids=8 --max-address-conns=9 --max-address-handshakes=10 --max-identity-watched=11 --max-identity-in-flight=12 --max-conn-lookups=13 --max-identity-pending-bytes=14KiB"))
	if err != nil || o.check() != nil {
		t.Fatal(err, o.check())
	}
	var c engine.Config
	o.set(&c)
	rate := func(n int64) engine.Rate { return engine.Rate{PerSecond: n} }
	want := engine.Limits{Messages: rate(3), Bytes: rate(4 << 20), Lookups: rate(5), Connections: 6, Sessions: 7, IDs: 8, Watched: 11, InFlight: 12, PendingBytes: 14 << 10}
	if c.ConnMessages != rate(1) || c.ConnLookups != rate(13) || c.ConnBytes != rate(2<<10) || c.IdentityLimits != want || c.MaxAddressConns != 9 || c.AddressHandshakes != rate(10) {
		t.Errorf("%+v", c)
	}
	o.identityIDs = -1
	if err := o.check(); err == nil || !strings.Contains(err.Error(), "--max-identity-ids -1 must be over 0") {
		t.Errorf("a negative limit: %v", err)
	}
	var none engine.Config
	new(limitOptions).set(&none)
	if none.IdentityLimits != (engine.Limits{}) || none.ConnMessages != (engine.Rate{}) || none.ConnLookups != (engine.Rate{}) || none.AddressHandshakes != (engine.Rate{}) {
		t.Errorf("no flags set %+v", none)
	}
}

// noted notes the limits that it was given.
type noted struct{ all []engine.NodeLimits }

func (n *noted) SetLimits(l engine.NodeLimits) error { n.all = append(n.all, l); return nil }

// A reload applies each flag whose name begins with max-, and only new values.
func TestReloadLimits(t *testing.T) {
	var running options
	f := pflag.NewFlagSet("relay", pflag.ContinueOnError)
	running.addFlags(f)
	var node noted
	p := reloadLimits(&node, running.nodeLimits(), slog.New(slog.DiscardHandler))
	f.VisitAll(func(flag *pflag.Flag) {
		if !strings.HasPrefix(flag.Name, "max-") {
			return
		}
		if !slices.Contains(p.flags, flag.Name) {
			t.Errorf("--%s needs a restart", flag.Name)
		}
		if err := flag.Value.Set("7"); err != nil {
			t.Fatal(err)
		}
		before := len(node.all)
		for range 2 {
			commit, err := p.prepare(t.Context(), &running)
			if err != nil {
				t.Fatal(err)
			}
			if commit != nil {
				commit()
			}
		}
		if len(node.all) != before+1 || node.all[before] != running.nodeLimits() {
			t.Errorf("--%s was applied %d times: %+v", flag.Name, len(node.all)-before, node.all[before:])
		}
	})
	if len(p.flags) != len(node.all) {
		t.Errorf("%d flags of %d are known", len(node.all), len(p.flags))
	}
}
