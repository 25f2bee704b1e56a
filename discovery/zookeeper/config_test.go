package zookeeper

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestURL(t *testing.T) {
	for url, want := range map[string]target{
		"zk://a":                         {[]string{"a:2181"}, "/distmsg"},
		"zk://a/":                        {[]string{"a:2181"}, "/distmsg"},
		"zk://a:1,b:2/x":                 {[]string{"a:1", "b:2"}, "/x"},
		"zk://[::1],[::2]:3,127.0.0.1/x": {[]string{"[::1]:2181", "[::2]:3", "127.0.0.1:2181"}, "/x"},
		"zk://a:1/x/y-z/":                {[]string{"a:1"}, "/x/y-z"},
	} {
		got, err := parseURL(url)
		if err != nil || !slices.Equal(got.servers, want.servers) || got.path != want.path {
			t.Errorf("%s: %v, %v", url, got, err)
		}
	}
	for _, url := range []string{
		"", "a:1/x", "redis://a/x", "zk://", "zk:///x", "zk://a,/x", "zk://:1/x", "zk://a:b/x", "zk://a:70000/x", "zk://::1/x",
		"zk://a//x", "zk://a/x/../y", "zk://a/x?y=z",
	} {
		if got, err := parseURL(url); err == nil {
			t.Errorf("%q gave %v", url, got)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no URL":           {},
		"password in URL":  {URL: "zk://user:hunter2@a/x"},
		"password, scheme": {URL: "user:hunter2@a/x"},
		"no user":          {URL: "zk://a", Auth: ":hunter2"},
		"no colon":         {URL: "zk://a", Auth: "hunter2"},
		"negative":         {URL: "zk://a", Relist: -1},
		"short session":    {URL: "zk://a", SessionTimeout: time.Millisecond},
	} {
		_, err := Open(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if wrong := (*ConfigError)(nil); !errors.As(err, &wrong) {
			t.Errorf("%s: %T", name, err)
		}
		if text := err.Error(); strings.Contains(text, "hunter2") || strings.Contains(text, "\n") {
			t.Errorf("%s: %q", name, text)
		}
	}
}
