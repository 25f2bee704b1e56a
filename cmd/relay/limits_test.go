package main

import (
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
