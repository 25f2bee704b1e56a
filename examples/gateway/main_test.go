package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"distmsg/internal/proc"
)

// The program finds its node in ZooKeeper, serves, and ends well when it is asked to.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	zk, err := proc.StartZooKeeper(t.Context(), proc.ZooKeeperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zk.Close)
	redis, err := proc.StartRedis(t.Context(), proc.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	where := "zk://" + zk.Addr + "/distmsg"
	relay, err := proc.StartRelay(t.Context(), proc.RelayOptions{
		Env:   []string{"DISTMSG_CLUSTER_SECRET=the secret of the test's cluster"},
		Flags: []string{"--peer-listen", "{peer-addr}", "--discovery", where, "--registry", redis.URL()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)

	dir := t.TempDir()
	if err := proc.Build(t.Context(), dir, "./examples/gateway"); err != nil {
		t.Fatal(err)
	}
	opened := regexp.MustCompile(`open (http://\S+)`)
	gateway, err := proc.Start(t.Context(), proc.Command{
		Path: dir + "/gateway",
		Args: []string{"--http", "127.0.0.1:0", "--discovery", where},
		Ready: func(_ context.Context, p *proc.Process) error {
			if !opened.MatchString(p.Output()) {
				return errors.New("it does not say where it is")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gateway.Kill)
	url := opened.FindStringSubmatch(gateway.Output())[1]
	get(t, url+"/login", "clientId", "1001").want(t, 200, "ok")
	get(t, url+"/send", "from", "1001", "to", "1001").want(t, 200, "acked")
	if err := gateway.Stop(); err != nil {
		t.Error(err)
	}
	if code := gateway.Wait(); code != 0 {
		t.Errorf("it ended with %d: %s", code, gateway.Output())
	}
}

// Bad flags are one line that names what is wrong.
func TestBadFlags(t *testing.T) {
	for want, args := range map[string][]string{
		`unexpected argument "7020"`:           {"7020"},
		"not-zk":                               {"--discovery", "not-zk://127.0.0.1:1/x"},
		"need --tls":                           {"--tls-ca", "f"},
		"--tls-cert and --tls-key go together": {"--tls", "--tls-cert", "f"},
		"--tls-ca: open no-such-file":          {"--tls", "--tls-ca", "no-such-file"},
		"7020x":                                {"--http", "127.0.0.1:7020x"},
		"nowhere":                              {"--http", "127.0.0.1:0", "--nodes", "nowhere"},
	} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", args, err, want)
		}
	}
}
