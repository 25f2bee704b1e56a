package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"

	"distmsg/engine"
	"distmsg/internal/cli"
)

// The environment variables that may hold secrets instead of files.
const (
	envSecret           = "DISTMSG_CLUSTER_SECRET"
	envRegistryPassword = "DISTMSG_REGISTRY_PASSWORD"
	envSentinelPassword = "DISTMSG_REGISTRY_SENTINEL_PASSWORD"
	envDiscoveryAuth    = "DISTMSG_DISCOVERY_AUTH"

	minSecret = 16 // bytes
)

// secrets are values that must not be in flags.
type secrets struct {
	// of the cluster: the first is used, and all are accepted; nil: none
	cluster                    [][]byte
	registry, sentinel, zkAuth string
}

func readSecrets(o options, logger *slog.Logger) (secrets, error) {
	var s secrets
	var cluster string
	for _, from := range []struct {
		flag, file, env string
		to              *string
	}{
		{"--cluster-secret-file", o.secretFile, envSecret, &cluster},
		{"--registry-password-file", o.registryPasswordFile, envRegistryPassword, &s.registry},
		{"--registry-sentinel-password-file", o.sentinelPasswordFile, envSentinelPassword, &s.sentinel},
		{"--discovery-auth-file", o.discoveryAuthFile, envDiscoveryAuth, &s.zkAuth},
	} {
		var err error
		if *from.to, err = readSecret(from.flag, from.file, from.env, logger); err != nil {
			return s, err
		}
	}
	switch {
	case cluster == "" && o.clustered():
		return s, cli.Usagef("a cluster needs a secret: put at least %d random bytes into a file "+
			"and add --cluster-secret-file FILE, or set %s", minSecret, envSecret)
	case cluster != "":
		var err error
		s.cluster, err = clusterSecrets(cluster)
		return s, err
	}
	return s, nil
}

// ofCluster returns the secret of the cluster that the node uses, and those that it only accepts.
func (s *secrets) ofCluster() (used []byte, accepted [][]byte) {
	if len(s.cluster) == 0 {
		return nil, nil
	}
	return s.cluster[0], s.cluster[1:]
}

// clusterSecrets returns the secrets in a text, one for each line.
func clusterSecrets(text string) (all [][]byte, err error) {
	for line := range strings.Lines(text) {
		secret := []byte(strings.TrimRight(line, "\r\n"))
		if len(secret) < minSecret {
			return nil, cli.Usagef("the cluster's secret has %d bytes, at least %d are needed in each line: for example, "+
				"head -c 32 /dev/urandom | base64 > FILE", len(secret), minSecret)
		}
		all = append(all, secret)
	}
	return all, nil
}

// secretsSetter is an engine whose secrets can be replaced.
type secretsSetter interface {
	SetSecrets(s engine.Secrets) error
}

// reloadSecrets is the part that applies the new content of the file with the cluster's secret. A
// node that began without a secret does not get one.
func reloadSecrets(node secretsSetter, running [][]byte, logger *slog.Logger) part {
	return part{what: "the secret of the cluster", flags: []string{"cluster-secret-file"}, prepare: func(_ context.Context, next *options) (func(), error) {
		if running == nil {
			return nil, nil
		}
		text, err := readSecret("--cluster-secret-file", next.secretFile, envSecret, logger)
		if err != nil {
			return nil, err
		}
		if text == "" {
			return nil, cli.Usagef("the cluster's secret is missing")
		}
		secrets, err := clusterSecrets(text)
		if err != nil || slices.EqualFunc(secrets, running, bytes.Equal) {
			return nil, err
		}
		return func() {
			running = secrets
			// They were checked, so there is no error.
			if err := node.SetSecrets(engine.Secrets{Cluster: secrets}); err != nil {
				logger.Error("the secret of the cluster cannot be replaced", "error", err)
			}
		}, nil
	}}
}

// readSecret reads a file without the newline at its end, or the environment if no file is given.
func readSecret(flag, file, env string, logger *slog.Logger) (string, error) {
	if file == "" {
		return os.Getenv(env), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", cli.Usagef("%s cannot be read: %v", flag, err)
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	if len(text) == 0 {
		return "", cli.Usagef("%s %s is empty", flag, file)
	}
	warnReadable(flag, file, logger)
	return string(text), nil
}

// warnReadable warns about a file with a secret that everybody can read.
func warnReadable(flag, file string, logger *slog.Logger) {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o004 != 0 {
		logger.Warn("everybody on this machine can read a secret: set its mode to 600", "flag", flag, "file", file)
	}
}
