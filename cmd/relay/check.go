package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"distmsg/discovery"
	"distmsg/internal/cli"
)

// check rejects invalid flags. It resolves the addresses to listen on only once, so that the node
// uses exactly the address that was checked.
func (o *options) check() error {
	if err := checkLevel(o.logLevel); err != nil {
		return err
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"--drain-timeout", o.drainTimeout}, {"--resume-window", o.resumeWindow}, {"--expiry-grace", o.expiryGrace}} {
		if d.value <= 0 {
			return cli.Usagef("%s %v must be over 0", d.flag, d.value)
		}
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"--max-session-ids", o.maxSessionIDs}, {"--max-node-ids", o.maxNodeIDs}, {"--max-node-watched", o.maxNodeWatched}} {
		if n.value <= 0 {
			return cli.Usagef("%s %d must be over 0", n.flag, n.value)
		}
	}
	if err := o.limits.check(); err != nil {
		return err
	}
	if o.verifyPeriod < time.Second {
		return cli.Usagef("--verify-period %v must be at least 1s", o.verifyPeriod)
	}
	if o.nodeID != "" {
		if err := discovery.CheckName(o.nodeID); err != nil {
			return cli.Usagef("--node-id %v: give this node a name of 1 to %d bytes", err, discovery.MaxText)
		}
	}
	if strings.ContainsFunc(o.cluster, oddInName) || len(o.cluster) > discovery.MaxText {
		return cli.Usagef("--cluster %s: want a name of up to %d bytes, without spaces and without any of {}[]*?\\", brief(o.cluster), discovery.MaxText)
	}
	if err := o.tls.check(o.clustered()); err != nil {
		return err
	}
	for _, check := range []func() error{o.checkAuth, o.checkPasswords, o.checkRegistry, o.checkCluster, o.checkAddrs} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// brief quotes a value of the command line, and only the beginning of a long one.
func brief(s string) string {
	const enough = 80
	if len(s) > enough {
		return fmt.Sprintf("%q…", s[:enough])
	}
	return strconv.Quote(s)
}

// oddInName reports whether a cluster's name must not contain r: keys in Redis, and patterns for
// them, begin with the name.
func oddInName(r rune) bool {
	return !unicode.IsPrint(r) || r == ' ' || r == utf8.RuneError || strings.ContainsRune(`{}[]*?\`, r)
}

// checkPasswords rejects passwords on the command line, where every user of this machine could read
// them. It does not quote what it finds.
func (o *options) checkPasswords() error {
	if strings.Contains(o.registry, "@") {
		return cli.Usagef("--registry contains a user or a password, which process listings would show: " +
			"use --registry-username, and --registry-password-file or the environment variable " + envRegistryPassword)
	}
	if strings.Contains(o.discovery, "@") {
		return cli.Usagef("--discovery contains a user or a password, which process listings would show: " +
			"use --discovery-auth-file or the environment variable " + envDiscoveryAuth)
	}
	return nil
}

func (o *options) checkRegistry() error {
	if o.registry == memoryRegistry {
		return needless("works only with Redis: add --registry redis://HOST:PORT",
			flagValue{"--registry-username", o.registryUsername}, flagValue{"--registry-password-file", o.registryPasswordFile},
			flagValue{"--registry-sentinel-password-file", o.sentinelPasswordFile}, flagValue{"--registry-ca-file", o.registryCA},
			flagValue{"--registry-cert-file", o.registryCert}, flagValue{"--registry-key-file", o.registryKey})
	}
	if !strings.HasPrefix(o.registry, "rediss") {
		return needless("works only with TLS: begin --registry with rediss",
			flagValue{"--registry-ca-file", o.registryCA}, flagValue{"--registry-cert-file", o.registryCert}, flagValue{"--registry-key-file", o.registryKey})
	}
	if (o.registryCert == "") != (o.registryKey == "") {
		return cli.Usagef("--registry-cert-file and --registry-key-file go together: give both, or neither")
	}
	return nil
}

type flagValue struct{ flag, value string }

// needless rejects flags that would have no effect.
func needless(why string, flags ...flagValue) error {
	for _, f := range flags {
		if f.value != "" {
			return cli.Usagef("%s %s", f.flag, why)
		}
	}
	return nil
}

func (o *options) checkCluster() error {
	if o.discovery == "" || o.byDNS() {
		if err := needless("works only with ZooKeeper: add --discovery zk://HOST:PORT", flagValue{"--discovery-auth-file", o.discoveryAuthFile}); err != nil {
			return err
		}
	}
	if !o.clustered() {
		return needless("works only in a cluster: add --discovery or --peers",
			flagValue{"--peer-listen", o.peerListen}, flagValue{"--peer-advertise", o.peerAdvertise})
	}
	flag := "--peers"
	if o.discovery != "" {
		flag = "--discovery"
	}
	switch {
	case o.discovery != "" && o.peerList != "":
		return cli.Usagef("--discovery and --peers exclude each other: give one of them")
	case o.registry == memoryRegistry:
		return cli.Usagef("%s needs a registry that all nodes share: add --registry redis://HOST:PORT", flag)
	case o.peerList != "" && o.nodeID == "":
		return cli.Usagef("--peers needs --node-id: add the ID of this node in the lists of the others")
	}
	var err error
	o.peers, err = parsePeers(o.peerList)
	return err
}
