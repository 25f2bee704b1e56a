package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"distmsg/discovery"
	"distmsg/discovery/discoverytest"
	"distmsg/internal/proc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait.
const patience = 30 * time.Second

func startDNS(t *testing.T) *proc.DNS {
	t.Helper()
	d, err := proc.StartDNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// open opens what a URL names, with a DNS as the server.
func open(t *testing.T, d *proc.DNS, url string) *Membership {
	t.Helper()
	m, err := Open(t.Context(), config(d, url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func config(d *proc.DNS, url string) Config {
	return Config{
		URL: url + "?server=" + d.Addr + "&refresh=100ms", Timeout: time.Second, StartTimeout: patience,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// hosts is a zone in which relay.test has these addresses.
func hosts(addrs ...string) proc.Zone {
	zone := proc.Zone{Hosts: map[string][]netip.Addr{"relay.test.": {}}}
	for _, a := range addrs {
		zone.Hosts["relay.test."] = append(zone.Hosts["relay.test."], netip.MustParseAddr(a))
	}
	return zone
}

func at(addr, name string) discovery.Record { return discovery.Record{PeerAddr: addr, PeerName: name} }

// TestContract runs the suite of all sources: with A records, with SRV records, and for each way in
// which a DNS may be away.
func TestContract(t *testing.T) {
	for mood, name := range map[proc.DNSMood]string{proc.DNSEmpty: "empty", proc.DNSFails: "fails", proc.DNSSilent: "silent"} {
		for _, kind := range []string{"A", "SRV"} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				discoverytest.Run(t, func(t *testing.T) *discoverytest.Harness { return harness(t, kind, mood) })
			})
		}
	}
}

func harness(t *testing.T, kind string, broken proc.DNSMood) *discoverytest.Harness {
	d := startDNS(t)
	url := map[string]string{"A": "dns://relay.test:7402", "SRV": "dns://relay.test"}[kind]
	return &discoverytest.Harness{
		Open: func(t *testing.T) discoverytest.Source { return open(t, d, url) },
		Set: func(_ *testing.T, nodes ...int) {
			zone := hosts()
			zone.Services = map[string][]proc.Service{}
			for _, i := range nodes {
				host, ip := fmt.Sprintf("n%d.relay.test.", i), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				zone.Hosts[host] = []netip.Addr{ip}
				if kind == "A" {
					zone.Hosts["relay.test."] = append(zone.Hosts["relay.test."], ip)
				} else {
					zone.Services["relay.test."] = append(zone.Services["relay.test."], proc.Service{Host: host, Port: 7402})
				}
			}
			d.Set(zone)
		},
		Want: func(nodes ...int) (all []discovery.Record) {
			for _, i := range nodes {
				name := "relay.test"
				if kind == "SRV" {
					name = fmt.Sprintf("n%d.relay.test", i)
				}
				all = append(all, at(fmt.Sprintf("10.0.0.%d:7402", i), name))
			}
			return all
		},
		Break: func(*testing.T) { d.Behave(broken) },
		Heal:  func(*testing.T) { d.Behave(proc.DNSAnswers) },
	}
}

// Both kinds of addresses are listed. Those that no node can have are left out and named.
func TestAddresses(t *testing.T) {
	t.Parallel()
	d := startDNS(t)
	d.Set(hosts("10.0.0.2", "fd00::1", "0.0.0.0", "10.0.0.1"))
	m := open(t, d, "dns://relay.test:7402")
	discoverytest.Sees(t, m, []discovery.Record{at("10.0.0.1:7402", "relay.test"), at("10.0.0.2:7402", "relay.test"), at("[fd00::1]:7402", "relay.test")})
	if skipped := m.Skipped(); len(skipped) != 1 || skipped[0] != "0.0.0.0:7402 names no host" || m.Err() != nil {
		t.Errorf("%q, %v", skipped, m.Err())
	}
}

// Each SRV record says where its port is. A host that cannot be looked up keeps its addresses.
func TestServices(t *testing.T) {
	t.Parallel()
	d := startDNS(t)
	zone := proc.Zone{
		Hosts: map[string][]netip.Addr{"a.test.": {netip.MustParseAddr("10.0.0.1")}, "b.test.": {netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}},
		Services: map[string][]proc.Service{"_peer._tcp.test.": {
			{Host: "a.test.", Port: 7402}, {Host: "a.test.", Port: 7412}, {Host: "b.test.", Port: 7402}, {Host: ".", Port: 1}, {Host: "a.test.", Port: 0},
		}},
	}
	d.Set(zone)
	m := open(t, d, "dns://_peer._tcp.test")
	want := []discovery.Record{at("10.0.0.1:7402", "a.test"), at("10.0.0.1:7412", "a.test"), at("10.0.0.2:7402", "b.test"), at("[fd00::2]:7402", "b.test")}
	discoverytest.Sees(t, m, want)
	if skipped := m.Skipped(); len(skipped) != 1 || skipped[0] != "10.0.0.1:0 has no port from 1 to 65535" {
		t.Errorf("%q", skipped)
	}
	d.Set(proc.Zone{Hosts: map[string][]netip.Addr{"a.test.": {netip.MustParseAddr("10.0.0.9")}}, Services: zone.Services})
	discoverytest.Sees(t, m, []discovery.Record{at("10.0.0.2:7402", "b.test"), at("10.0.0.9:7402", "a.test"), at("10.0.0.9:7412", "a.test"), at("[fd00::2]:7402", "b.test")})
	if err := m.Err(); err == nil || err.Error() != "dns: b.test.: it names no address" {
		t.Error(err)
	}
}

// A name without addresses is not an error at the start. Nobody is told of an empty list.
func TestNobodyYet(t *testing.T) {
	t.Parallel()
	d := startDNS(t)
	m := open(t, d, "dns://relay.test:7402")
	if err := m.Err(); err == nil || err.Error() != "dns: relay.test: it names no address" {
		t.Error(err)
	}
	first := make(chan []discovery.Record, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Watch(ctx, func(all []discovery.Record) { first <- all })
	}()
	d.Set(hosts("10.0.0.1"))
	if all := <-first; len(all) != 1 {
		t.Errorf("told of %v", all)
	}
	cancel()
	<-ended
}

// Open fails if DNS does not answer, and says what it was asked.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	d := startDNS(t)
	for mood, want := range map[proc.DNSMood]string{
		proc.DNSSilent: "dns: no answer within 300ms: correct the name, or repair DNS: dns: relay.test: no answer from " + d.Addr + " in time",
		proc.DNSFails:  "dns: no answer within 300ms: correct the name, or repair DNS: dns: relay.test: " + d.Addr + ": server misbehaving",
	} {
		d.Behave(mood)
		cfg := config(d, "dns://relay.test:7402")
		cfg.Timeout, cfg.StartTimeout = 100*time.Millisecond, 300*time.Millisecond
		if _, err := Open(t.Context(), cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	before := d.Asked("relay.test.")
	if _, err := Open(ended, config(d, "dns://relay.test:7402")); !errors.Is(err, context.Canceled) || d.Asked("relay.test.") != before {
		t.Errorf("%v", err)
	}
}

// What is wrong with a URL is said before anything is looked up.
func TestURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]target{
		"dns://relay.test:7402":                         {name: "relay.test", port: "7402"},
		"dns://_peer._tcp.relay.test":                   {name: "_peer._tcp.relay.test"},
		"dns://relay.test.:7402?server=10.0.0.53":       {name: "relay.test.", port: "7402", server: "10.0.0.53:53"},
		"dns://relay?server=[fd00::1]:5353&refresh=30s": {name: "relay", server: "[fd00::1]:5353"},
	} {
		if _, to, err := (Config{URL: url}).validate(); err != nil || to != want {
			t.Errorf("%s: %+v, %v", url, to, err)
		}
	}
	for url, want := range map[string]string{
		"":                               "does not look like dns://",
		"zk://a":                         "does not look like dns://",
		"dns://":                         "does not look like dns://",
		"dns://relay:0":                  "has no port from 1 to 65535",
		"dns://relay:70000":              "has no port from 1 to 65535",
		"dns://user@relay":               "has more than a name, a port and options",
		"dns://relay/path":               "has more than a name, a port and options",
		"dns://relay?servers=10.0.0.1":   "has the unknown option servers: there are server and refresh",
		"dns://relay?server=10.0.0.1:no": "server=10.0.0.1:no: want HOST:PORT of a DNS server",
		"dns://relay?refresh=5":          "refresh=5: want a time like 5s",
		"dns://relay?refresh=1ms":        "dns: refresh is 1ms, want at least 100ms",
	} {
		_, err := Open(t.Context(), Config{URL: url})
		if wrong := (*ConfigError)(nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}
