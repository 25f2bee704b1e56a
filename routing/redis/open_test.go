package redis

import (
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"distmsg/internal/proc"
)

// What cannot work is refused at the start, by one line that says what to do.
func TestOpenRefuses(t *testing.T) {
	files := certificates(t)
	plain := startRedis(t, proc.RedisOptions{})
	open(t, testConfig(plain.URL()))
	locked := startRedis(t, proc.RedisOptions{Password: "secret"})
	host, port, _ := strings.Cut(plain.Addr, ":")
	replica := startRedis(t, proc.RedisOptions{Args: []string{"--replicaof", host, port}})
	full := startRedis(t, proc.RedisOptions{Args: []string{"--maxmemory", "1"}})
	evicting := startRedis(t, proc.RedisOptions{Args: []string{"--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"}})
	limited := startRedis(t, proc.RedisOptions{})
	command(t, limited, "ACL SETUSER blind on >pw ~* +@all -info", "ACL SETUSER elsewhere on >pw ~other:* +@all")
	secure := startRedis(t, proc.RedisOptions{TLS: &files})
	node := startRedis(t, proc.RedisOptions{Args: []string{"--cluster-enabled", "yes", "--cluster-port", freePort(t)}})

	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"nobody there", func(c *Config) { c.URL = "redis://127.0.0.1:1" }, "cannot be reached"},
		{"no password", func(c *Config) { c.URL = locked.URL() }, "requires a password"},
		{"wrong password", func(c *Config) { c.URL, c.Password = locked.URL(), "guess" }, "check the password file"},
		{"no INFO", func(c *Config) { c.URL, c.Username, c.Password = limited.URL(), "blind", "pw" }, "lacks a permission"},
		{"other keys", func(c *Config) { c.URL, c.Username, c.Password = limited.URL(), "elsewhere", "pw" }, "lacks a permission"},
		{"replica", func(c *Config) { c.URL = replica.URL() }, "name its master"},
		{"memory full", func(c *Config) { c.URL = full.URL() }, "raise maxmemory"},
		{"evicts", func(c *Config) { c.URL = evicting.URL() }, "set maxmemory-policy from allkeys-lru to noeviction"},
		{"other buckets", func(c *Config) { c.Buckets = 128 }, "has 64 buckets, not 128"},
		{"unknown authority", func(c *Config) { c.URL = secure.URL() }, "certificate"},
		{"TLS to plain", func(c *Config) { c.URL = "rediss://" + plain.Addr }, "without TLS"},
		{"plain to TLS", func(c *Config) { c.URL = "redis://" + secure.Addr }, "use rediss://"},
		{"no such CA file", func(c *Config) { c.URL, c.TLS.CA = secure.URL(), "/nowhere" }, "the CA file"},
		{"not a cluster", func(c *Config) { c.URL = "redis-cluster://" + plain.Addr }, "use redis://"},
		{"a cluster", func(c *Config) { c.URL = "redis://" + node.Addr }, "use redis-cluster://"},
		{"no sentinel", func(c *Config) { c.URL = "redis-sentinel://127.0.0.1:1/m" }, "cannot be reached"},
		{"no sentinels", func(c *Config) { c.URL = "redis-sentinel://127.0.0.1:1,127.0.0.1:2/m" }, "cannot be reached"},
		{"password in URL", func(c *Config) { c.URL = "redis://:pw@h" }, "put the password into a file"},
		{"braces", func(c *Config) { c.Prefix = "{a}" }, "must not contain braces"},
		{"no buckets", func(c *Config) { c.Buckets = -1 }, "want 1 to"},
		{"negative time", func(c *Config) { c.Timeout = -time.Second }, "negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := testConfig(plain.URL())
			c.change(&config)
			r, err := Open(t.Context(), config)
			if err == nil {
				r.Close()
				t.Fatal("opened")
			}
			if text := err.Error(); !strings.Contains(text, c.want) || strings.Contains(text, "\n") {
				t.Errorf("%q\nwant one line with %q", text, c.want)
			} else {
				t.Log(text)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestParseURL(t *testing.T) {
	for url, want := range map[string]place{
		"redis://h":                         {addrs: []string{"h:6379"}},
		"redis://h:1/2":                     {addrs: []string{"h:1"}, database: 2},
		"redis://[::1]:7/":                  {addrs: []string{"[::1]:7"}},
		"rediss://h":                        {addrs: []string{"h:6379"}, tls: true},
		"redis-sentinel://a,b:2/main":       {kind: sentinel, addrs: []string{"a:26379", "b:2"}, master: "main"},
		"rediss-sentinel://a/main/3":        {kind: sentinel, addrs: []string{"a:26379"}, master: "main", database: 3, tls: true},
		"redis-cluster://a:1,b:2":           {kind: cluster, addrs: []string{"a:1", "b:2"}},
		"rediss-cluster://a/0":              {kind: cluster, addrs: []string{"a:6379"}, tls: true},
		"redis-cluster://a:1,b:2,127.0.0.1": {kind: cluster, addrs: []string{"a:1", "b:2", "127.0.0.1:6379"}},
	} {
		if got, err := parseURL(url); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", url, got, err, want)
		}
	}
	for _, url := range []string{
		"", "h:1", "http://h", "redis://", "redis://h:0", "redis://h:x", "redis://h:70000", "redis://a,b", "redis://h/x", "redis://h/-1",
		"redis://user@h", "redis://h?db=1", "redis-sentinel://h", "redis-sentinel:///m", "redis-cluster://a,", "redis-cluster://a/1",
		"redis-other://h",
	} {
		if got, err := parseURL(url); err == nil {
			t.Errorf("%q: %+v, want an error", url, got)
		}
	}
}
